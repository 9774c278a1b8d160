"""Which rank holds what."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ConfigError
from engine.parallel import ALONE, MAX_GATHERED_BYTES, ParallelLayout, Part, Ranks, sum_in_rank_order
from tests.helpers.ranks import ThreadGroup, on_ranks, tensor_ranks


@pytest.mark.parametrize(("total", "count"), [(8, 2), (10, 4), (3, 4), (126_464, 3)])
def test_parts_cover_everything_once(total: int, count: int) -> None:
    spans = [Part(index, count).span(total) for index in range(count)]
    assert [item for start, end in spans for item in range(start, end)] == list(range(total))
    sizes = [end - start for start, end in spans]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("tensor", "expert"), [(1, 1), (2, 1), (2, 2), (1, 4), (2, 4), (4, 2), (4, 1)])
def test_every_part_is_held_and_every_rank_holds_another_expert_part(tensor: int, expert: int) -> None:
    layout = ParallelLayout(tensor, expert)
    ranks = range(layout.world_size)
    assert {layout.tensor_part(rank).index for rank in ranks} == set(range(tensor))
    shares = {(layout.expert_part(rank).index, layout.expert_width_part(rank).index) for rank in ranks}
    assert len(shares) == layout.world_size == expert * layout.expert_width_part(0).count


@pytest.mark.parametrize(("tensor", "expert"), [(2, 3), (3, 2), (0, 1)])
def test_layouts_that_do_not_fit_together(tensor: int, expert: int) -> None:
    with pytest.raises(ConfigError, match="multiple of the smaller"):
        ParallelLayout(tensor, expert)


@pytest.mark.parametrize("num_tokens", [1, 3, 257])
def test_the_order_of_a_sum_depends_neither_on_the_place_nor_on_the_size(num_tokens: int) -> None:
    """In float32, so that every other order of these numbers gives other bits somewhere."""
    rows = [torch.randn(67, generator=torch.Generator().manual_seed(rank)) for rank in range(4)]
    expected = ((rows[0] + rows[1]) + rows[2]) + rows[3]
    assert not torch.equal(expected, ((rows[1] + rows[2]) + rows[3]) + rows[0])

    def work(ranks: Ranks) -> tuple[torch.Tensor, int]:
        assert isinstance(ranks.tensor, ThreadGroup)
        numbers = rows[ranks.rank].repeat(num_tokens, 1)
        total = sum_in_rank_order(ranks.tensor, numbers)
        assert torch.equal(numbers[0], rows[ranks.rank])
        return total, len(ranks.tensor.sizes)

    for total, num_collectives in tensor_ranks(4, work):
        assert all(torch.equal(row, expected) for row in total)
        assert num_collectives == (1 if total.nbytes <= MAX_GATHERED_BYTES else 2)


def test_exchanging_rows_suits_ranks_with_whole_experts() -> None:
    ParallelLayout(2, 4, "all_to_all")
    with pytest.raises(ConfigError, match="use all_reduce, or expert_parallel_size 4") as caught:
        ParallelLayout(4, 2, "all_to_all")
    assert caught.value.param == "expert_dispatch"


def test_alone_holds_everything() -> None:
    assert (ALONE.rank, ALONE.expert_part, ALONE.expert_width_part) == (0, Part(), Part())
    assert ALONE.world.part.span(7) == (0, 7)


def test_ranks_of_threads_exchange_in_rank_order() -> None:
    def work(ranks: Ranks) -> tuple[list[int], list[int], list[int]]:
        rank = torch.tensor([ranks.rank])
        summed = ranks.tensor.all_reduce(rank + 1)
        rows = torch.tensor([10 * ranks.rank, 10 * ranks.rank + 1, 10 * ranks.rank + 1, 10 * ranks.rank + 3])
        sent = [1, 2, 0, 1]
        received = ranks.world.all_to_all(rows, sent, [sent[ranks.rank]] * 4)
        return ranks.world.all_gather(rank).flatten().tolist(), summed.tolist(), received.tolist()

    results = on_ranks(ParallelLayout(tensor=2, expert=4), work)
    assert [gathered for gathered, _, _ in results] == [[0, 1, 2, 3]] * 4
    assert [summed for _, summed, _ in results] == [[3], [3], [7], [7]]
    assert [received for _, _, received in results] == [
        [0, 10, 20, 30],
        [1, 1, 11, 11, 21, 21, 31, 31],
        [],
        [3, 13, 23, 33],
    ]


def test_ranks_of_threads_that_part_ways_fail() -> None:
    def work(ranks: Ranks) -> None:
        ranks.world.all_gather(torch.zeros(1 + ranks.rank))

    with pytest.raises(AssertionError, match="differ"):
        tensor_ranks(2, work)

    def die(ranks: Ranks) -> None:
        if ranks.rank == 1:
            raise ValueError("rank 1 is gone")
        ranks.world.all_gather(torch.zeros(1))

    with pytest.raises(ValueError, match="rank 1 is gone"):
        tensor_ranks(2, die)
