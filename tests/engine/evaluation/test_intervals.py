"""Intervals: known values, and coverage in seeded simulations."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from engine.evaluation.intervals import mean_share, paired_means, paired_proportions, pass_at, ratio
from engine.evaluation.scoring import wilson_interval

TRIALS = 600


def test_paired_proportions_of_known_counts() -> None:
    first = [True] * 60 + [False] * 40
    second = [True] * 55 + [False] * 5 + [True] * 15 + [False] * 25
    found = paired_proportions(first, second)
    assert found.value == pytest.approx(0.10)
    assert tuple(found.interval) == pytest.approx((0.00994, 0.18614), abs=1e-5)


def test_agreement_everywhere_still_has_a_width() -> None:
    found = paired_proportions([True] * 30, [True] * 30)
    assert found.value == 0
    assert found.interval.low < -0.05
    assert found.interval.high > 0.05


def test_pairing_narrows_the_interval() -> None:
    """Discordant answers alone make the spread: the same counts with more disagreement are less sure."""
    first = [True] * 50 + [False] * 50
    agreeing = paired_proportions(first, [True] * 55 + [False] * 45)
    opposed = paired_proportions(first, [False] * 45 + [True] * 55)
    assert agreeing.value == opposed.value == pytest.approx(0.05)
    assert agreeing.interval.high - agreeing.interval.low < 0.5 * (opposed.interval.high - opposed.interval.low)


def test_paired_means_of_known_numbers() -> None:
    found = paired_means([1, 2, 3, 4], [2, 4, 3, 5])
    assert found.value == 1
    assert found.interval.high - 1 == pytest.approx(1.96 * (2 / 3) ** 0.5 / 2)


def test_a_single_prompt_bounds_nothing() -> None:
    assert ratio([3], [2]).interval == (-np.inf, np.inf)
    assert ratio([3], [2]).to_dict() == {"value": 1.5, "interval": [None, None]}


def test_a_constant_ratio_is_certain() -> None:
    found = ratio([2, 4, 6], [1, 2, 3])
    assert (found.value, *found.interval) == (2, 2, 2)


def test_paired_proportions_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(TRIALS):
        first = rng.random(80) < 0.9
        second = np.where(rng.random(80) < 0.1, ~first, first)
        low, high = paired_proportions(first.tolist(), second.tolist()).interval
        covered += low <= -0.08 <= high  # 0.9 * 0.1 lost, 0.1 * 0.1 gained
    assert covered / TRIALS >= 0.93


def test_the_ratio_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(TRIALS):
        forwards = rng.integers(2, 12, 80)
        tokens = rng.poisson(3.0 * forwards)
        low, high = ratio(tokens.tolist(), forwards.tolist()).interval
        covered += low <= 3.0 <= high
    assert 0.93 <= covered / TRIALS <= 0.975


@pytest.mark.parametrize(("right", "samples"), [(0, 5), (1, 5), (3, 5), (5, 5)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(right: int, samples: int) -> None:
    for k in range(1, samples + 1):
        draws = list(combinations(range(samples), k))
        share = sum(min(draw) < right for draw in draws) / len(draws)
        assert pass_at(k, right, samples) == pytest.approx(share)


def test_shares_of_nothing_and_all_are_proportions() -> None:
    assert mean_share([1, 0, 1, 1]).interval == wilson_interval(3, 4)
    assert mean_share([0.5, 0.25]).value == 0.375
    low, high = mean_share([0.0] * 20).interval
    assert (low, high > 0.1) == (0, True)


def test_shares_between_cover_the_truth() -> None:
    """Three answers to each of 60 prompts, some easy and some hard: the mean of pass@2."""
    rng = np.random.default_rng(2)
    truth = np.mean([1 - (1 - chance) ** 2 for chance in (0.1, 0.5, 0.9)])
    covered = 0
    for _ in range(TRIALS):
        rights = rng.binomial(3, rng.choice([0.1, 0.5, 0.9], 60))
        low, high = mean_share([pass_at(2, int(right), 3) for right in rights]).interval
        covered += low <= truth <= high
    assert covered / TRIALS >= 0.95
