"""How decided blocks change a slot: masks, stop ids, limits, history."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.slots import BlockStatus, SlotTable, SlotTraits

MASK, STOP = 99, 7
TOKENS = st.lists(st.sampled_from([1, 2, STOP, MASK]), min_size=4, max_size=4)
TRAITS = SlotTraits(
    policy=0,
    decoder=0,
    guide_slot=-1,
    max_steps=16,
    edits=False,
    drawn=False,
    filtered=False,
    deferred=False,
    watched=False,
    transforms=0,
)


def table(
    prompt_len: int, max_tokens: int, canvas_len: int = 12, slot: int = 1, traits: SlotTraits = TRAITS
) -> SlotTable:
    slots = SlotTable(3, 16, MASK)
    canvas = np.full(canvas_len, MASK)
    canvas[:prompt_len] = 1
    start = prompt_len // 4 * 4
    slots.open(slot, canvas, prompt_len, max_tokens, (start, start + 4), 4, [STOP], traits, {"share": 0.5})
    return slots


def absorb(
    slots: SlotTable, start: int, tokens: list[int], *, length: int | None = None, done: bool = True
) -> BlockStatus:
    """The block at ``start`` of slot 1 now holds ``tokens``, which are longer than the block if it has a ``length``."""
    bounds = np.array([start]), np.array([start + (length or len(tokens))])
    probability = np.full((1, len(tokens)), 0.25, np.float32)
    return slots.absorb(np.array([1]), *bounds, np.array([tokens]), np.array([done]), probability)


@given(TOKENS, st.integers(0, 3), st.integers(1, 8))
def test_a_block_stands_as_its_tokens_say(tokens: list[int], prompt_len: int, max_tokens: int) -> None:
    """A block [0, 4) whose first ``prompt_len`` positions are prompt."""
    tokens = [1] * prompt_len + tokens[prompt_len:]
    slots = table(prompt_len, max_tokens)
    status = absorb(slots, 0, tokens)

    limit = prompt_len + max_tokens
    first_mask = tokens.index(MASK) if MASK in tokens else 4
    stops = [at for at in range(prompt_len, min(4, limit)) if tokens[at] == STOP and at < first_mask]
    assert status.decided_to_N.tolist() == [min(first_mask, limit)]
    assert status.complete_N.tolist() == [MASK not in tokens]
    assert status.stop_N.tolist() == [STOP if stops else -1]
    final = min(stops[0] if stops else first_mask, limit)
    assert status.completion_len_N.tolist() == [max(final - prompt_len, 0)]
    assert slots.tokens[1, :4].tolist() == tokens


@given(st.lists(TOKENS, min_size=2, max_size=2), st.integers(1, 8))
def test_the_final_length_of_a_whole_completion(blocks: list[list[int]], max_tokens: int) -> None:
    slots = table(4, max_tokens)
    slots.tokens[1, 4:12] = [*blocks[0], *blocks[1]]
    completion = [*blocks[0], *blocks[1]][:max_tokens]
    ends = [at for at, token in enumerate(completion) if token in {STOP, MASK}]
    expected = (ends[0], STOP if completion[ends[0]] == STOP else -1) if ends else (len(completion), -1)
    assert slots.final_len(1) == expected


def test_history_remembers_the_step_that_filled_a_position_and_forgets_it_when_masked_again() -> None:
    slots = table(4, 4)
    for step, tokens in enumerate(([MASK, 5, MASK, MASK], [6, 5, MASK, MASK], [6, MASK, MASK, 8]), start=1):
        slots.denoising_steps[1] = step
        absorb(slots, 4, tokens)
    assert slots.revealed_at[1, :4].tolist() == [0] * 4
    assert slots.revealed_at[1, 4:8].tolist() == [2, 0, 0, 3]
    np.testing.assert_array_equal(slots.probabilities(1), np.array([0.25, np.nan, np.nan, 0.25], np.float32))


def test_a_complete_block_is_final_up_to_the_next_mask_behind_given_text() -> None:
    slots = table(4, 8)
    slots.tokens[1, 8:10] = 5
    assert absorb(slots, 4, [1, 2, 1, 2]).decided_to_N.tolist() == [10]
    slots.tokens[1, 8:12] = 5
    assert absorb(slots, 4, [1, 2, 1, 2]).decided_to_N.tolist() == [12]


def test_a_block_that_may_still_be_edited_shows_nothing_and_ends_nothing() -> None:
    slots = table(4, 8, traits=replace(TRAITS, edits=True))
    open_block = absorb(slots, 4, [1, STOP, 2, 2], done=False)
    assert (open_block.complete_N[0], open_block.stop_N[0], open_block.completion_len_N[0]) == (False, -1, 0)
    closed = absorb(slots, 4, [1, STOP, 2, 2])
    assert (closed.complete_N[0], closed.stop_N[0], closed.completion_len_N[0]) == (True, STOP, 1)


def test_a_block_narrower_than_the_widest_ignores_what_lies_behind_it() -> None:
    slots = table(4, 2, canvas_len=6)
    status = absorb(slots, 4, [5, 6, STOP, MASK], length=2)
    assert status.complete_N.tolist() == [True]
    assert status.stop_N.tolist() == [-1]
    assert status.completion_len_N.tolist() == [2]
    assert (slots.tokens[1, 6:] == MASK).all()


def test_a_reopened_slot_knows_nothing_of_its_former_owner() -> None:
    slots = table(4, 8)
    absorb(slots, 4, [5, 6, 5, 6])
    for counter in ("step", "cached_len", "forwards", "denoising_steps", "positions"):
        getattr(slots, counter)[1] = 3
    slots.refreshed[1] = slots.closing[1] = True
    slots.close(1)
    assert not slots.running[1]

    slots.open(1, np.array([2, MASK]), 1, 1, (1, 2), 1, [], TRAITS, {})

    assert slots.running[1]
    assert not slots.refreshed[1]
    assert not slots.closing[1]
    for counter in ("step", "cached_len", "forwards", "denoising_steps", "positions"):
        assert getattr(slots, counter)[1] == 0
    assert slots.tokens[1, 0] == 2
    assert (slots.tokens[1, 1:] == MASK).all()
    assert not slots.revealed_at[1].any()
    assert (slots.stop_ids[1] == -1).all()


def test_policy_knobs_are_kept_per_slot() -> None:
    slots = table(4, 8)
    assert slots.knobs(np.array([0, 1]))["share"].tolist() == [0.0, 0.5]


def test_a_splice_moves_tokens_with_their_history_and_the_block_begins_anew() -> None:
    slots = table(4, 8, canvas_len=8)
    slots.denoising_steps[1], slots.step[1], slots.refreshed[1] = 1, 1, True
    absorb(slots, 4, [MASK, MASK, 5, 6])
    slots.splice(1, 4, 1, np.full(3, MASK))
    assert slots.tokens[1, 4:10].tolist() == [MASK, MASK, MASK, MASK, 5, 6]
    assert slots.revealed_at[1, 4:10].tolist() == [0, 0, 0, 0, 1, 1]
    assert np.isnan(slots.probability[1, 4:10]).tolist() == [True, True, True, True, False, False]
    assert (slots.canvas_len[1], slots.block_end[1], slots.step[1], slots.refreshed[1]) == (10, 8, 0, False)
    assert slots.stale_steps[1] == -1
    assert (slots.tokens[[0, 2]] == MASK).all()


def test_open_places_are_masks_and_for_an_editor_what_was_not_given() -> None:
    slots = SlotTable(3, 16, MASK)
    for slot, edits in ((0, False), (1, True), (2, False)):
        canvas = np.array([1] * 4 + [MASK, 7, MASK, MASK] + [MASK] * 2)
        slots.open(slot, canvas, 4, 6, (4, 8), 4, [], replace(TRAITS, edits=edits), {})
        slots.denoising_steps[slot] = 1
        tokens = np.array([[MASK, 7, 9, MASK]])
        slots.absorb(
            np.array([slot]), np.array([4]), np.array([8]), tokens, np.array([True]), np.ones((1, 4), np.float32)
        )
    slots.block_start[2], slots.block_end[2] = 8, 10
    block_M, offset_M = slots.open_places(np.array([0, 1, 2]), np.array([False, False, True]))
    places = list(zip(block_M.tolist(), offset_M.tolist(), strict=True))
    assert places == [(0, 0), (0, 3), (1, 0), (1, 2), (1, 3), (2, 0)], "place 1 was given, of the last only the first"
