"""How sure a mean, a ratio and a paired difference are: estimates with 95 % intervals (normal approximation)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.evaluation.scoring import Interval, wilson_interval

Z = 1.96


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the interval it lies in."""

    value: float
    interval: Interval

    def to_dict(self) -> dict[str, object]:
        return {"value": round(self.value, 4), "interval": finite(self.interval)}


def finite(values: Sequence[float]) -> list[float | None]:
    """Rounded for JSON, which has no infinity: None stands for it."""
    return [None if math.isinf(value) else round(value, 4) for value in values]


def paired_proportions(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Share of successes in ``second`` less that in ``first``, over the same trials in the same order.

    The interval is the adjusted Wald interval for paired data (Bonett and Price 2012): one trial is added to each
    kind of disagreement, so it has width even where both agree everywhere.
    """
    trials = len(first)
    gained = sum(after and not before for before, after in zip(first, second, strict=True))
    lost = sum(before and not after for before, after in zip(first, second, strict=True))
    up, down = (gained + 1) / (trials + 2), (lost + 1) / (trials + 2)
    spread = Z * ((up + down - (up - down) ** 2) / (trials + 2)) ** 0.5
    bounds = Interval(max(-1.0, up - down - spread), min(1.0, up - down + spread))
    return Estimate((gained - lost) / trials, bounds)


def pass_at(k: int, right: int, samples: int) -> float:
    """Probability that one of k answers, drawn from ``samples`` of which so many are right, is right: the estimator of
    pass@k without bias (Chen et al. 2021, section 2.1). 1 <= k <= samples."""
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def mean_share(shares: Sequence[float]) -> Estimate:
    """Mean of numbers between 0 and 1, one per prompt.

    The interval is Wilson's for as many trials with that mean: exact in that sense for zeros and ones, too wide for
    numbers between, which vary less; never without width.
    """
    total = math.fsum(shares)
    return Estimate(total / len(shares), wilson_interval(total, len(shares)))


def paired_means(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of ``second - first`` over the same trials in the same order."""
    differences = np.asarray(second, float) - np.asarray(first, float)
    return _normal(float(differences.mean()), differences)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Sum over sum, e.g. tokens per forward, with prompts as independent pairs (linearised, Cochran 1977, 6.4)."""
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    value = float(above.sum() / below.sum())
    return _normal(value, (above - value * below) / below.mean())


def _normal(value: float, residuals: npt.NDArray[np.float64]) -> Estimate:
    """One residual alone says nothing about their spread: the interval is then unbounded."""
    count = len(residuals)
    spread = Z * float(residuals.std(ddof=1)) / count**0.5 if count > 1 else math.inf
    return Estimate(value, Interval(value - spread, value + spread))
