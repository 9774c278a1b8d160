"""Which rank holds what."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.parallel import ALONE, ParallelLayout, Part


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


def test_alone_holds_everything() -> None:
    assert (ALONE.rank, ALONE.expert_part, ALONE.expert_width_part) == (0, Part(), Part())
    assert ALONE.world.part.span(7) == (0, 7)
