"""Canvases of several ranks are compared when it is asked for, and only then."""

from __future__ import annotations

import pytest
import torch

from engine.canvas import Canvas
from engine.errors import RanksDisagreeError
from engine.parallel import AbsentGroup, Part, Ranks
from engine.rank_check import RankCheck
from tests.helpers.ranks import tensor_ranks


def canvas_of(rank: int, odd_rank: int | None = None) -> Canvas:
    canvas = Canvas(4, 8, 9, torch.device("cpu"))
    canvas.admit(1, torch.tensor([1, 2, 9, 9]))
    canvas.admit(2, torch.tensor([4, 4 if rank == odd_rank else 5]))
    return canvas


def test_every_rank_learns_who_differs_and_where() -> None:
    def work(ranks: Ranks) -> str:
        with pytest.raises(RanksDisagreeError) as caught:
            RankCheck(ranks.world, 1).after_forward(canvas_of(ranks.rank, odd_rank=0))
        return str(caught.value)

    message = "after forward 1 the ranks' canvases differ: slot 2: rank 0 against ranks 1, 2; the replica"
    assert all(text.startswith(message) for text in tensor_ranks(3, work))


def test_equal_canvases_pass_and_each_so_many_forwards_count() -> None:
    def work(ranks: Ranks) -> list[int]:
        never, third = RankCheck(ranks.world, 0), RankCheck(ranks.world, 3)
        never.after_forward(canvas_of(ranks.rank, odd_rank=1))
        for forward in range(1, 4):
            third.after_forward(canvas_of(ranks.rank, odd_rank=1 if forward < 3 else None))
        return ranks.world.sizes  # type: ignore[attr-defined,no-any-return]

    assert tensor_ranks(2, work) == [[4], [4]]


def test_one_rank_asks_nobody() -> None:
    canvas = canvas_of(0)
    with pytest.raises(AssertionError, match="is alone"):
        RankCheck(AbsentGroup(Part(0, 2)), 1).after_forward(canvas)
    RankCheck(AbsentGroup(Part()), 1).after_forward(canvas)  # would raise as well if it asked
