"""How long the network took in one forward, without making the host wait for a GPU."""

from __future__ import annotations

import time

import torch


class ForwardClock:
    """Starts when it is made. On a GPU, where a call only queues its work, it measures between two events of the
    stream; elsewhere it reads the host's clock."""

    def __init__(self, device: torch.device) -> None:
        self._started_s = self._stopped_s = time.perf_counter()
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        if device.type == "cuda":
            self._events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            self._events[0].record()

    def stop(self) -> None:
        """The network has been computed, or queued."""
        self._stopped_s = time.perf_counter()
        if self._events is not None:
            self._events[1].record()

    def seconds(self) -> float:
        """Between start and stop. Call it once the host has a result that comes behind the stop: events are over."""
        if self._events is None:
            return self._stopped_s - self._started_s
        start, stop = self._events
        return float(start.elapsed_time(stop)) / 1000.0
