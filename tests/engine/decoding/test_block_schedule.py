"""SDAR's strategies: a schedule set by the block length, and three choices of positions."""

from __future__ import annotations

import pytest

from tests.helpers.decoding import Block, filled

UP = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(0, [1] * 8), (8, [1] * 8), (4, [2] * 4), (3, [3, 3, 2]), (5, [2, 2, 2, 1, 1]), (20, [1] * 8), (1, [8])],
)
@pytest.mark.parametrize("name", ["sequential", "low_confidence_static"])
def test_count_of_each_step(name: str, steps: int, expected: list[int]) -> None:
    for step, count in enumerate(expected):
        assert [len(row) for row in filled(name, Block(confidence=UP, knobs={"steps": steps}, step=step))] == [count]


def test_the_count_includes_decided_positions_of_the_block() -> None:
    half = [False] * 4 + [True] * 4
    block = Block(confidence=UP, masked=half, knobs={"steps": 4})
    assert filled("sequential", block) == [[4, 5]]
    assert filled("low_confidence_static", block) == [[6, 7]]


def test_more_than_the_masks_is_all_of_them() -> None:
    block = Block(confidence=UP, masked=[False] * 7 + [True], knobs={"steps": 2})
    for name in ("sequential", "low_confidence_static", "low_confidence_dynamic"):
        assert filled(name, block) == [[7]]


def test_sequential_goes_left_to_right_from_the_first_mask() -> None:
    gaps = [False, False, True, False, True, True, True, True]
    block = Block(confidence=UP, masked=gaps, knobs={"steps": 2}, start=16)
    assert filled("sequential", block) == [[2, 4, 5]]


def test_static_ties_go_to_the_smaller_position() -> None:
    assert filled("low_confidence_static", Block(confidence=[0.5] * 8, knobs={"steps": 4})) == [[0, 1]]


def test_dynamic_needs_more_than_the_threshold_and_at_least_the_schedule() -> None:
    confidence = [0.9, 0.85, 0.95, 0.86]

    def choose(threshold: float, steps: int) -> list[int]:
        return filled("low_confidence_dynamic", Block(confidence=confidence, knobs=knobs(threshold, steps)))[0]

    assert choose(0.85, 4) == [0, 2, 3]  # 0.85 itself is not above
    assert choose(0.91, 4) == [2]
    assert choose(0.91, 2) == [0, 2]  # one is not enough for the schedule of two: the two best
    assert choose(0.99, 4) == [2]
    assert choose(0.0, 4) == [0, 1, 2, 3]


def knobs(threshold: float, steps: int) -> dict[str, object]:
    return {"threshold": threshold, "steps": steps}


def test_short_last_blocks_count_their_own_length() -> None:
    """A row narrower than the widest of the forward has its own schedule."""
    long, short = Block(confidence=UP, knobs={"steps": 2}), Block(confidence=UP[:3], knobs={"steps": 2})
    assert filled("low_confidence_static", long, short) == [[4, 5, 6, 7], [1, 2]]
