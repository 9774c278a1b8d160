"""Noise as a hash: the same counters give the same number, other counters independent ones."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.randomness import fold_seed, gumbel, uniform

COUNTER = st.integers(0, 2**32 - 1)


@given(COUNTER, COUNTER, COUNTER)
def test_numbers_lie_strictly_inside_0_and_1_and_repeat(seed: int, first: int, second: int) -> None:
    one = uniform(*(torch.tensor(value) for value in (seed, first, second)))
    assert one.dtype == torch.float32
    assert 0 < one.item() < 1
    assert torch.equal(one, uniform(*(torch.tensor([value]) for value in (seed, first, second)))[0])


def test_shapes_broadcast_and_order_of_counters_matters() -> None:
    grid = uniform(torch.tensor([[1], [2]]), torch.tensor([[5]]), torch.arange(4))
    assert grid.shape == (2, 4)
    assert grid[1, 3] == uniform(torch.tensor(2), torch.tensor(5), torch.tensor(3))
    assert uniform(torch.tensor(1), torch.tensor(2)) != uniform(torch.tensor(2), torch.tensor(1))


def test_numbers_are_uniform_and_neither_seeds_nor_counters_correlate() -> None:
    count = 20_000
    for numbers in (
        uniform(torch.tensor(7), torch.arange(count)),
        uniform(torch.arange(count), torch.tensor(7)),
        uniform(torch.tensor(1), torch.arange(count), torch.tensor(3)),
    ):
        observed = torch.histc(numbers, bins=20, min=0, max=1)
        chi_square = ((observed - count / 20) ** 2 / (count / 20)).sum()
        assert chi_square < 43.8  # 99.9 % for 19 degrees of freedom
        pairs = torch.corrcoef(torch.stack((numbers[:-1], numbers[1:])))[0, 1]
        assert abs(pairs) < 4 / count**0.5


def test_gumbel_noise_is_finite_with_the_right_mean() -> None:
    noise = gumbel(torch.tensor(3), torch.arange(50_000))
    assert torch.isfinite(noise).all()
    assert abs(noise.mean() - 0.5772) < 0.03


@given(st.integers())
def test_seeds_of_any_size_fold_into_32_bits(seed: int) -> None:
    assert 0 <= fold_seed(seed) < 2**32


def test_small_seeds_stay_themselves() -> None:
    assert [fold_seed(seed) for seed in (0, 1, 2**32 - 1)] == [0, 1, 2**32 - 1]
    assert fold_seed(2**32) != fold_seed(0)
