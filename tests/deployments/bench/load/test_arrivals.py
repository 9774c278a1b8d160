"""deployments/bench/load/arrivals.py: schedules by rate, seed and shape."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.bench.load.arrivals import ARRIVALS, BURST, schedule


@pytest.mark.parametrize("arrivals", ARRIVALS)
def test_schedules_keep_their_rate_their_time_and_their_seed(arrivals: str) -> None:
    offsets = schedule(arrivals, rate=20.0, duration_s=200.0, seed=3)
    assert offsets.min() >= 0
    assert offsets.max() < 200
    assert (np.diff(offsets) >= 0).all()
    assert len(offsets) == pytest.approx(4000, rel=0.15)
    np.testing.assert_array_equal(offsets, schedule(arrivals, 20.0, 200.0, seed=3))


def test_constant_arrivals_have_equal_distances() -> None:
    np.testing.assert_allclose(schedule("constant", 4.0, 1.0, 0), [0, 0.25, 0.5, 0.75])


def test_poisson_arrivals_vary_as_exponential_distances_do() -> None:
    gaps = np.diff(schedule("poisson", 50.0, 200.0, 0))
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert not np.array_equal(gaps[:9], np.diff(schedule("poisson", 50.0, 200.0, 1))[:9])


def test_a_burst_comes_at_once() -> None:
    offsets = schedule("burst", 10.0, 100.0, 0)
    _, sizes = np.unique(offsets, return_counts=True)
    assert set(sizes) == {BURST}


def test_a_slow_rate_still_asks_once() -> None:
    assert schedule("poisson", 0.001, 1.0, 0).tolist() == [0.0]
