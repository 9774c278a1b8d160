"""CUDA graphs: work of a fixed shape is recorded once and replayed with new contents of the same memory.

A replay costs the host one launch instead of thousands. What is recorded may neither wait for the host nor look at its
memory, and every tensor that it reads or writes must stay where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

WARM_UP_RUNS = 2
"""Runs before the recording: libraries choose algorithms and allocate workspaces at their first calls."""


class GraphBackend(Protocol):
    """Records work on a device."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Run the work a few times, record it, and return what replays it."""
        ...


class CudaGraphs:
    """Graphs of one device, which share one pool of memory: they are replayed one after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        with torch.cuda.device(self._device):
            self._warm_up(run)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                run()
        self._pool = graph.pool()
        replay: Callable[[], None] = graph.replay
        return replay

    def _warm_up(self, run: Callable[[], None]) -> None:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                run()
        current.wait_stream(side)


def ladder(largest: int) -> tuple[int, ...]:
    """Numbers of rows to record: close together where a row more costs most, at most a third too many further up."""
    steps = [1, 2, 3, 4, 6, 8]
    while steps[-1] < largest:
        steps.append(steps[-1] + max(4, steps[-1] // 4 // 4 * 4))
    return tuple(sorted({min(step, largest) for step in steps}))


def rung(sizes: tuple[int, ...], wanted: int) -> int | None:
    """The smallest recorded number of rows that holds so many; None when there is none."""
    return next((size for size in sizes if size >= wanted), None)
