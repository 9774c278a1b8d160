"""LLaDA's schedule: how many at each step, and which."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.decoding import Block, filled, offsets, select

FIVE = [0.1, 0.5, 0.3, 0.5, 0.2]


def counts(num_masked: int, steps: int, *, name: str = "low_confidence", width: int = 12) -> list[int]:
    """Positions filled at each step until no mask is left."""
    masked = [i >= width - num_masked for i in range(width)]
    sequence: list[int] = []
    state = {"initial_masks": 0}
    for step in range(100):
        if not any(masked):
            return sequence
        block = Block(confidence=[0.5] * width, masked=masked, knobs={"steps": steps}, state=state, step=step)
        selection = select(name, block)
        chosen = offsets(selection)[0]
        state = {"initial_masks": int(selection.state["initial_masks"][0])}
        masked = [flag and i not in chosen for i, flag in enumerate(masked)]
        sequence.append(len(chosen))
    raise AssertionError("the block never completes")


@pytest.mark.parametrize(
    ("num_masked", "steps", "expected"),
    [
        (8, 4, [2, 2, 2, 2]),
        (8, 3, [3, 3, 2]),
        (7, 3, [3, 2, 2]),
        (3, 8, [1, 1, 1]),
        (5, 1, [5]),
        (4, 0, [1, 1, 1, 1]),
        (12, 5, [3, 3, 2, 2, 2]),
    ],
)
@pytest.mark.parametrize("name", ["low_confidence", "random"])
def test_masks_are_spread_evenly_with_the_remainder_first(
    num_masked: int, steps: int, expected: list[int], name: str
) -> None:
    assert counts(num_masked, steps, name=name) == expected


def test_the_schedule_counts_the_masks_of_the_first_step_not_the_block_length() -> None:
    partly = Block(confidence=FIVE, masked=[False, True, True, True, False], knobs={"steps": 3})
    assert filled("low_confidence", partly) == [[1]]


def test_most_confident_first_and_ties_to_the_smaller_position() -> None:
    assert filled("low_confidence", Block(confidence=FIVE, knobs={"steps": 5})) == [[1]]
    assert filled("low_confidence", Block(confidence=FIVE, knobs={"steps": 3})) == [[1, 3]]
    assert filled("low_confidence", Block(confidence=[0.5] * 5, knobs={"steps": 2})) == [[0, 1, 2]]


def test_run_all_steps_keeps_a_filled_block_open_until_its_last_step() -> None:
    nothing_left = [False] * 3
    for step, done in ((0, False), (3, False), (4, True)):
        knobs = {"steps": 5, "run_all_steps": True}
        block = Block(confidence=[0.5] * 3, masked=nothing_left, knobs=knobs, state={"initial_masks": 3}, step=step)
        selection = select("low_confidence", block)
        assert selection.done_N is not None
        assert selection.done_N.tolist() == [done]
        assert offsets(selection) == [[]]


def test_without_run_all_steps_a_block_is_done_as_soon_as_it_is_full() -> None:
    selection = select("low_confidence", Block(confidence=FIVE, knobs={"steps": 3}))
    assert selection.done_N is not None
    assert selection.done_N.all()


@given(seed=st.integers(0, 2**32 - 1), start=st.integers(0, 5000), step=st.integers(0, 9))
def test_random_order_is_a_function_of_seed_step_and_position(seed: int, start: int, step: int) -> None:
    def block(confidence: list[float]) -> Block:
        state = {"initial_masks": 8}
        return Block(confidence=confidence, knobs={"steps": 3}, state=state, seed=seed, start=start, step=step)

    first = filled("random", block([0.5] * 8))
    assert first == filled("random", block([i / 8 for i in range(8)]), padding=3)
    assert first == filled("random", Block(confidence=[0.1] * 12), block([0.9] * 8))[1:]


def test_random_order_reaches_every_position_evenly() -> None:
    blocks = [Block(confidence=[0.5] * 4, knobs={"steps": 4}, seed=seed) for seed in range(4000)]
    hits = select("random", *blocks).transfer_NB.sum(dim=0)
    assert hits.sum() == 4000
    assert torch.all((hits - 1000).abs() < 5 * (4000 * 0.25 * 0.75) ** 0.5)
