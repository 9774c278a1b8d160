"""Top-k and top-p on ranks with some columns each: what one rank keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.decoding.filtering import ascending_bits, filter_top_k_top_p
from engine.decoding.vocabulary import Vocabulary
from tests.helpers.vocabulary import alone, columns_of_ranks, random_logits

LAST_BITS = 5e-7
"""Float32 sums of probabilities in another order, at most."""


def same_as_alone(logits: Tensor, top_k: Tensor, top_p: Tensor, count: int) -> None:
    """The same tokens stay, but for those before which there is ``top_p`` to the last bits."""

    def keep(vocabulary: Vocabulary, own: Tensor) -> Tensor:
        return filter_top_k_top_p(own, vocabulary, top_k, top_p)

    expected, found = alone(keep, logits), columns_of_ranks(count, keep, logits)
    kept = found.isfinite()
    assert torch.equal(found[kept], logits[kept])
    differing = (kept != expected.isfinite()).nonzero().tolist()
    for position, token in differing:
        row = logits[position].double()
        earlier = (row > row[token]) | ((row == row[token]) & (torch.arange(len(row)) < token))
        among = row >= row.topk(int(top_k[position].clamp(max=len(row))) or len(row)).values[-1]
        before = (row.exp() * earlier * among).sum() / (row.exp() * among).sum()
        assert abs(before - top_p[position]) < LAST_BITS, (position, token)
    assert len(differing) <= 2


@settings(max_examples=25)
@given(
    st.lists(st.integers(-4, 4).map(lambda value: value / 2), min_size=4, max_size=12),
    st.integers(0, 14),
    st.sampled_from([0.0, 1e-9, 0.1, 0.35, 0.5, 0.77, 0.99, 1.0]),
    st.sampled_from([2, 3]),
)
def test_ties_across_ranks_and_odd_settings(logits: list[float], top_k: int, top_p: float, count: int) -> None:
    same_as_alone(torch.tensor([logits]), torch.tensor([top_k]), torch.tensor([top_p]), count)


@pytest.mark.parametrize("count", [2, 3])
def test_settings_of_all_kinds_side_by_side(count: int) -> None:
    logits = random_logits(120, 401, scale=2.0)
    logits[::3] = (logits[::3] * 2).round() / 2
    logits[7] = -torch.inf
    logits[7, 390] = 1.0
    logits[8] = 0.0
    top_k = torch.tensor([0, 1, 5, 400, 10_000]).repeat(24)
    top_p = torch.tensor([1.0, 0.9, 0.5, 0.999, 1e-6, 0.0]).repeat(20)
    same_as_alone(logits, top_k, top_p, count)


def test_nearly_flat_and_very_steep_distributions() -> None:
    for scale in (1e-3, 300.0):
        logits = random_logits(30, 500, seed=3, scale=scale)
        same_as_alone(logits, torch.zeros(30, dtype=torch.int64), torch.full((30,), 0.87), 2)


def test_bits_ascend_with_the_numbers() -> None:
    numbers = torch.tensor([-torch.inf, -3e38, -1.5, -1e-45, -0.0, 0.0, 1e-45, 2.0, 3e38, torch.inf])
    bits = ascending_bits(numbers)
    assert (bits.diff() > 0).tolist() == [True, True, True, True, False, True, True, True, True]
    assert bits.min() >= -(2**31)
    assert bits.max() < 2**31
