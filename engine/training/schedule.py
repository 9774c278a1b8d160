"""Where a training run stands, and what follows from it: stage and learning rate."""

from __future__ import annotations

import time

from engine.training.job import Budget, Curriculum, Stage


class Schedule:
    """Turns steps and time into the fraction of the run, the stage and the share of the peak learning rates."""

    def __init__(self, curriculum: Curriculum, budget: Budget) -> None:
        self._curriculum = curriculum
        self._budget = budget
        self._started = time.monotonic()
        self.step = 0
        self.fraction = 1.0 if budget.steps == 0 else 0.0

    def restore(self, step: int, fraction: float, elapsed_s: float) -> None:
        """Go on where another schedule of the same budget was."""
        self.step, self.fraction = step, fraction
        self._started = time.monotonic() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def finished(self) -> bool:
        return self.fraction >= 1.0

    @property
    def stage(self) -> Stage:
        stages = self._curriculum.stages
        return next((stage for stage in stages if self.fraction < stage.until), stages[-1])

    def advance(self, elapsed_s: float) -> None:
        """Count one step, begun so many seconds after the start."""
        self.step += 1
        steps, minutes = self._budget.steps, self._budget.minutes
        by_step = self.step / steps if steps else 0.0
        by_time = elapsed_s / (60 * minutes) if minutes else 0.0
        self.fraction = max(by_step, by_time)

    @property
    def rate(self) -> float:
        """Warm-up, plateau, linear decay; times the stage's own factor."""
        curriculum = self._curriculum
        warm = min(1.0, self.step / curriculum.warmup_steps) if curriculum.warmup_steps else 1.0
        decay = min(1.0, (1.0 - self.fraction) / (1.0 - curriculum.decay_from)) if curriculum.decay_from < 1 else 1.0
        return self.stage.rate * warm * max(curriculum.final_rate, decay)
