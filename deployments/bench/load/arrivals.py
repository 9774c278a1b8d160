"""When the requests of an open loop start: decided before the first one, whatever the server does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.float64]
BURST = 8
"""Requests that arrive together with ``burst``."""


def schedule(arrivals: str, rate: float, duration_s: float, seed: int) -> Offsets:
    """Seconds from the start, ascending, below ``duration_s``, at least one; ``rate`` is requests per second."""
    count = max(round(rate * duration_s * 2) + BURST * 8, 16)  # more than can fall into the time, then cut
    offsets = ARRIVALS[arrivals](rate, count, np.random.default_rng(seed))
    kept = offsets[offsets < duration_s]
    return kept if len(kept) else np.zeros(1)


def constant(rate: float, count: int, _rng: np.random.Generator) -> Offsets:
    """One after the other at equal distances."""
    return np.arange(count) / rate


def poisson(rate: float, count: int, rng: np.random.Generator) -> Offsets:
    """Independent clients: distances are exponential."""
    return np.cumsum(rng.exponential(1 / rate, count))


def burst(rate: float, count: int, rng: np.random.Generator) -> Offsets:
    """Groups of BURST at once, at distances of a Poisson process."""
    groups = np.cumsum(rng.exponential(BURST / rate, -(-count // BURST)))
    return np.repeat(groups, BURST)


ARRIVALS: Mapping[str, Callable[[float, int, np.random.Generator], Offsets]] = {
    "constant": constant,
    "poisson": poisson,
    "burst": burst,
}
