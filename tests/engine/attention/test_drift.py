from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.attention.drift import DriftMeter
from engine.parallel import Ranks
from tests.helpers.ranks import tensor_ranks


def kv(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows)[:, None, :]


UP, RIGHT, DOWN = (0.0, 1.0), (1.0, 0.0), (0.0, -1.0)


def meter(block_M: list[int], num_blocks: int) -> DriftMeter:
    return DriftMeter(torch.arange(len(block_M)), torch.tensor(block_M, dtype=torch.int64), num_blocks)


def test_what_stays_does_not_drift() -> None:
    same = kv(UP, RIGHT)
    one = meter([0, 1], 2)
    one.observe((same, same), (same * 3, same))
    assert one.drift().tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_block_drifts_by_the_mean_of_its_positions() -> None:
    one = meter([1, 0, 1], 3)
    stays = kv(UP, UP, UP)
    one.observe((kv(UP, UP, UP), stays), (kv(UP, RIGHT, DOWN), stays))
    assert one.drift().tolist() == pytest.approx([1.0, 1.0, 0.0])


def test_the_layer_and_the_kind_that_move_most_count() -> None:
    one = meter([0], 1)
    for keys, values in ((UP, RIGHT), (UP, UP), (UP, DOWN), (RIGHT, UP)):
        one.observe((kv(UP), kv(UP)), (kv(keys), kv(values)))
    assert one.drift().tolist() == pytest.approx([2.0])


def test_a_block_without_measured_positions_has_no_drift() -> None:
    one = meter([], 2)
    nothing = torch.empty(0, 1, 2)
    one.observe((nothing, nothing), (nothing, nothing))
    assert one.drift().tolist() == [0.0, 0.0]


def test_ranks_with_a_part_of_the_heads_each_measure_what_one_rank_would() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [[torch.randn(5, 4, 8, generator=generator) for _ in range(4)] for _ in range(3)]
    block_M = torch.tensor([0, 2, 0, 0, 2])

    def measure(ranks: Ranks) -> Tensor:
        one = DriftMeter(torch.arange(5), block_M, 3, ranks.tensor)
        heads = slice(*ranks.tensor.part.span(4))
        for keys, values, new_keys, new_values in layers:
            one.observe((keys[:, heads], values[:, heads]), (new_keys[:, heads], new_values[:, heads]))
        return one.drift()

    (alone,) = tensor_ranks(1, measure)
    assert alone.tolist()[1] == 0.0
    for drift_N in tensor_ranks(2, measure):
        assert drift_N.tolist() == alone.tolist()
