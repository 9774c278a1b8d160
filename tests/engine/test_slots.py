"""How decided blocks change a slot: masks, stop ids, limits, history."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.slots import SlotTable, SlotTraits

MASK, STOP = 99, 7
TOKENS = st.lists(st.sampled_from([1, 2, STOP, MASK]), min_size=4, max_size=4)
TRAITS = SlotTraits(
    policy=0, decoder=0, guide_slot=-1, max_steps=16, drawn=False, banned=False, deferred=False, watched=False
)


def table(prompt_len: int, max_tokens: int, canvas_len: int = 12, slot: int = 1) -> SlotTable:
    slots = SlotTable(3, 16, MASK)
    canvas = np.full(canvas_len, MASK)
    canvas[:prompt_len] = 1
    start = prompt_len // 4 * 4
    slots.open(slot, canvas, prompt_len, max_tokens, (start, start + 4), 4, [STOP], TRAITS, {"share": 0.5})
    return slots


@given(TOKENS, st.integers(0, 3), st.integers(1, 8))
def test_a_block_stands_as_its_tokens_say(tokens: list[int], prompt_len: int, max_tokens: int) -> None:
    """A block [0, 4) whose first ``prompt_len`` positions are prompt."""
    tokens = [1] * prompt_len + tokens[prompt_len:]
    slots = table(prompt_len, max_tokens)
    status = slots.absorb(np.array([1]), np.array([0]), np.array([4]), np.array([tokens]))

    limit = prompt_len + max_tokens
    first_mask = tokens.index(MASK) if MASK in tokens else 4
    stops = [at for at in range(prompt_len, min(4, limit)) if tokens[at] == STOP and at < first_mask]
    assert status.filled_to_N.tolist() == [first_mask]
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
        slots.absorb(np.array([1]), np.array([4]), np.array([8]), np.array([tokens]))
    assert slots.revealed_at[1, 4:8].tolist() == [2, 0, 0, 3]
    assert slots.revealed_at[1, :4].tolist() == [0] * 4


def test_a_block_narrower_than_the_widest_ignores_what_lies_behind_it() -> None:
    slots = table(4, 2, canvas_len=6)
    status = slots.absorb(np.array([1]), np.array([4]), np.array([6]), np.array([[5, 6, STOP, MASK]]))
    assert status.complete_N.tolist() == [True]
    assert status.stop_N.tolist() == [-1]
    assert status.completion_len_N.tolist() == [2]
    assert (slots.tokens[1, 6:] == MASK).all()


def test_a_reopened_slot_knows_nothing_of_its_former_owner() -> None:
    slots = table(4, 8)
    slots.absorb(np.array([1]), np.array([4]), np.array([8]), np.array([[5, 6, 5, 6]]))
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
