"""Which tokens are compared: those around measured blocks whose stored K/V were computed with the same token."""

from __future__ import annotations

import numpy as np

from engine.drift import drift_probe
from engine.plan import DecodeSpans, Rows
from engine.slots import SlotTable
from tests.engine.test_slots import MASK, TRAITS


def spans(slots: list[int]) -> DecodeSpans:
    number, flag = np.zeros(len(slots), np.int64), np.zeros(len(slots), np.bool_)
    columns = {name: number for name in DecodeSpans.__slots__ if name.endswith("_N")}
    flags = dict.fromkeys(("force_N", "first_only_N", "drawn_N", "filtered_N", "deferred_N"), flag)
    return DecodeSpans(**(columns | flags | {"slot_N": np.array(slots)}), groups=())  # type: ignore[arg-type]


def table() -> SlotTable:
    """Two canvases at their third step: prompt [0, 4), tokens of the first step at 4 and of the second at 5."""
    slots = SlotTable(3, 16, MASK)
    for slot in (0, 2):
        slots.open(slot, np.array([1] * 4 + [MASK] * 8), 4, 8, (4, 8), 4, [], TRAITS, {})
        slots.denoising_steps[slot] = 2
        slots.tokens[slot, 4:6] = 5
        slots.revealed_at[slot, 4:6] = 1, 2
    return slots


def rows(*spans_R: tuple[int, int, int]) -> Rows:
    slot, start, end = (np.array(column) for column in zip(*spans_R, strict=True))
    return Rows(slot, start, end, np.zeros_like(start), np.full_like(start, 12))


def test_masks_and_tokens_of_the_last_step_are_left_out() -> None:
    probe = drift_probe(spans([2, 0]), rows((0, 3, 8), (2, 2, 8)), table(), np.array([True, True]))
    assert probe is not None
    assert probe.token_M.tolist() == [0, 1, 5, 6, 7], "positions 3, 4 of slot 0 and 2, 3, 4 of slot 2"
    assert probe.block_M.tolist() == [1, 1, 0, 0, 0]


def test_only_measured_blocks_are_compared() -> None:
    forward = rows((0, 3, 8), (2, 2, 8))
    probe = drift_probe(spans([0, 2]), forward, table(), np.array([False, True]))
    assert probe is not None
    assert probe.token_M.tolist() == [5, 6, 7]
    assert drift_probe(spans([0, 2]), forward, table(), np.array([False, False])) is None
