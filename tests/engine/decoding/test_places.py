"""Open positions, and those of some blocks."""

from __future__ import annotations

import numpy as np
import torch

from engine.decoding.places import Places


def places() -> Places:
    return Places.of(torch.tensor([0, 0, 1, 3, 3]), torch.tensor([2, 4, 0, 1, 5]))


def test_places_of_wanted_blocks_are_chosen_in_order() -> None:
    chosen = places().where(np.array([True, True, True, False]))
    assert chosen is not None
    assert chosen.index.tolist() == chosen.on_host.tolist() == [0, 1, 2]
    own = places().only(chosen)
    assert (own.block_M.tolist(), own.offset_M.tolist()) == ([0, 0, 1], [2, 4, 0])
    within = own.where(np.array([False, True, True, True]))
    assert within is not None
    assert within.on_host.tolist() == [2], "indices are those of what was chosen before"


def test_nobody_and_everybody() -> None:
    assert places().where(np.zeros(4, np.bool_)) is None
    everybody = places().where(np.ones(4, np.bool_))
    assert everybody is not None
    assert everybody.index.tolist() == [0, 1, 2, 3, 4]


def test_a_part_keeps_both_sides_together() -> None:
    part = places().part(1, 4)
    assert len(part) == 3
    assert part.block_M.tolist() == part.host_block_M.tolist() == [0, 1, 3]
