"""Where a training run stands, and what follows from it: stage and learning rate."""

from __future__ import annotations

import time
from dataclasses import dataclass

from engine.training.presets import Recipe, Stage

FINAL_RATE = 0.02


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: until ``steps``, or until ``minutes`` of wall clock, whichever comes first."""

    steps: int | None
    minutes: float | None


class Schedule:
    """Turns steps and time into the fraction of the run, the stage and the share of the peak learning rates."""

    def __init__(self, recipe: Recipe, budget: Budget) -> None:
        self._recipe = recipe
        self._budget = budget
        self._started = time.monotonic()
        self.step = 0
        self.fraction = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def finished(self) -> bool:
        return self.fraction >= 1.0

    @property
    def stage(self) -> Stage:
        return next((stage for stage in self._recipe.stages if self.fraction < stage.until), self._recipe.stages[-1])

    def advance(self) -> None:
        """Count one step."""
        self.step += 1
        steps, minutes = self._budget.steps, self._budget.minutes
        by_step = self.step / steps if steps else 0.0
        by_time = self.elapsed_s / (60 * minutes) if minutes else 0.0
        self.fraction = max(by_step, by_time)

    @property
    def rate(self) -> float:
        """Warm-up, plateau, linear decay; times the stage's own factor."""
        warm = min(1.0, self.step / self._recipe.warmup_steps)
        decay = min(1.0, (1.0 - self.fraction) / (1.0 - self._recipe.decay_from))
        return self.stage.rate * warm * max(FINAL_RATE, decay)
