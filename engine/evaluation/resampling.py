"""How sure differences between groups of models are that answered the same prompts.

Shape legend: S models of a group (one per seed of their training), N prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.intervals import Estimate
from engine.evaluation.scoring import Interval

FloatArray = NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95


class Results(NamedTuple):
    """Right or wrong (1 or 0), forwards and tokens of each model on each prompt, ``[S, N]``."""

    right_SN: FloatArray
    forwards_SN: FloatArray
    tokens_SN: FloatArray


class Means(NamedTuple):
    """Of each prompt over the models of a group, ``[N]``, or of each draw over its prompts."""

    right: FloatArray
    forwards: FloatArray
    tokens: FloatArray

    @property
    def tpf(self) -> FloatArray:
        """Tokens per forward."""
        return self.tokens / self.forwards


Statistic = Callable[[Means], FloatArray]


@dataclass(frozen=True)
class Bootstrap:
    """Draws prompts with replacement, the same for every group, so that differences are paired. The models of a group
    are not drawn: intervals hold for these models, not for other seeds."""

    num_prompts: int
    seed: int = 0

    def estimate(self, first: Results, statistic: Statistic) -> Estimate:
        """A statistic of one group."""
        return _estimate(*(statistic(means) for means in self._both(first)))

    def difference(self, first: Results, second: Results, statistic: Statistic) -> Estimate:
        """The statistic of ``second`` less that of ``first``."""
        pairs = zip(self._both(first), self._both(second), strict=True)
        return _estimate(*(statistic(after) - statistic(before) for before, after in pairs))

    def ratio(self, first: Results, second: Results, statistic: Statistic) -> Estimate:
        """The statistic of ``second`` over that of ``first``."""
        pairs = zip(self._both(first), self._both(second), strict=True)
        return _estimate(*(statistic(after) / statistic(before) for before, after in pairs))

    def _both(self, results: Results) -> tuple[Means, Means]:
        """Means as they are, and of every draw."""
        per_prompt = [values_SN.mean(axis=0) for values_SN in results]
        drawn = [self._weights_DN @ values_N for values_N in per_prompt]
        return Means(*(values_N.mean(keepdims=True) for values_N in per_prompt)), Means(*drawn)

    @cached_property
    def _weights_DN(self) -> FloatArray:
        """How much each prompt counts in each of the :data:`DRAWS`."""
        number = self.num_prompts
        counts = np.random.default_rng(self.seed).multinomial(number, np.full(number, 1 / number), size=DRAWS)
        return counts / number


def _estimate(value: FloatArray, draws: FloatArray) -> Estimate:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Estimate(float(value[0]), Interval(float(low), float(high)))


def accuracy(means: Means) -> FloatArray:
    """Share of right answers."""
    return means.right


def forwards(means: Means) -> FloatArray:
    """NFE: forwards per prompt."""
    return means.forwards


def tokens_per_forward(means: Means) -> FloatArray:
    """TPF."""
    return means.tpf


class McNemar(NamedTuple):
    """Prompts that only the second model got right, those that only the first did, and the exact two-sided p-value of
    their being equally likely."""

    gained: int
    lost: int
    p_value: float


def mcnemar(first_N: FloatArray, second_N: FloatArray) -> McNemar:
    """Compare two models prompt by prompt."""
    gained, lost = int(((second_N == 1) & (first_N == 0)).sum()), int(((first_N == 1) & (second_N == 0)).sum())
    trials, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(trials, count) for count in range(fewer + 1)) / 2**trials
    return McNemar(gained, lost, min(1.0, 2 * tail))
