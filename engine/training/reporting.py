"""Means between two reports, over all processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from engine.training.feed import Feed
from engine.training.job import BadRows
from engine.training.machine import peak_memory
from engine.training.metrics import MetricsLog, TrainProgress
from engine.training.schedule import Schedule
from engine.training.world import World


class Timer:
    """True once its interval has passed since the last restart."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._since = time.monotonic()

    def __bool__(self) -> bool:
        return time.monotonic() - self._since > self._interval_s

    def restart(self) -> float:
        """Start anew; returns the seconds since the last start."""
        now = time.monotonic()
        elapsed, self._since = now - self._since, now
        return elapsed


class Reporter:
    """Counts steps and reports them. ``log`` is None on all processes but the first, which alone calls
    ``on_progress``; ``bad_rows`` are those of the samples."""

    def __init__(
        self,
        world: World,
        schedule: Schedule,
        feed: Feed,
        bad_rows: BadRows | None,
        log: MetricsLog | None,
        on_progress: Callable[[TrainProgress], None],
    ) -> None:
        self._world = world
        self._schedule = schedule
        self._feed = feed
        self._bad_rows = bad_rows
        self._log = log
        self._on_progress = on_progress
        self._interval = Timer(0.0)
        self._loss, self._gradient_norm, self._tokens, self._steps = 0.0, 0.0, 0, 0
        self._means = (float("nan"), float("nan"), 0.0)
        self.last: TrainProgress | None = None

    def count(self, loss: float, gradient_norm: float, tokens: int) -> None:
        """Take note of a step; loss and tokens are of this process."""
        self._loss += loss
        self._gradient_norm += gradient_norm
        self._tokens += tokens
        self._steps += 1

    def report(self, scores: Mapping[str, float] | None = None) -> None:
        """Report the steps since the last report, if there are any, or ``scores`` with the last means. Collective."""
        if self._steps:
            self._close_interval()
        elif scores is None:
            return
        loss, gradient_norm, tokens_per_s = self._means
        (dropped,) = self._world.sum([self._feed.num_dropped])
        self.last = TrainProgress(
            step=self._schedule.step,
            fraction=self._schedule.fraction,
            loss=loss,
            rate=self._schedule.rate,
            gradient_norm=gradient_norm,
            samples=self._feed.num_samples,
            tokens_per_s=tokens_per_s,
            elapsed_s=self._schedule.elapsed_s,
            dropped_rows=int(dropped),
            bad_rows=0 if self._bad_rows is None else self._bad_rows.count,
            memory_bytes=peak_memory(),
            scores=scores,
        )
        if self._log is not None:
            self._log.report(self.last)
            self._log.name_bad_rows(self._bad_rows)
            self._on_progress(self.last)

    def skip_time(self) -> None:
        """Leave the time until now out of the next report's rate."""
        self._interval.restart()

    def _close_interval(self) -> None:
        loss, tokens = self._world.sum([self._loss / self._world.size, self._tokens])
        self._means = (loss / self._steps, self._gradient_norm / self._steps, tokens / self._interval.restart())
        self._loss, self._gradient_norm, self._tokens, self._steps = 0.0, 0.0, 0, 0
