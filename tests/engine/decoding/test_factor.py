"""The falling threshold of factor decoding against its plain definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.decoding import Block, filled


def reference(confidence: list[float], factor: float) -> list[int]:
    """The j-th most confident (1-based) needs 1 - factor / (j + 1); the first needs nothing."""
    order = sorted(range(len(confidence)), key=lambda i: (-confidence[i], i))
    chosen = order[:1]
    for j, position in enumerate(order[1:], start=2):
        if np.float32(confidence[position]) < np.float32(1) - np.float32(factor) / np.float32(j + 1):
            break
        chosen.append(position)
    return sorted(chosen)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8),
    st.floats(0.0625, 4, width=32),
)
def test_takes_the_longest_confident_prefix_of_the_ranking(confidence: list[float], factor: float) -> None:
    block = Block(confidence=confidence, knobs={"factor": factor, "reference_tail": False})
    assert filled("factor", block) == [reference(confidence, factor)]


def test_a_failure_ends_it_although_a_later_position_would_pass() -> None:
    block = Block(confidence=[0.99, 0.6, 0.74, 0.76], knobs={"factor": 1.0})
    assert filled("factor", block) == [[0, 3]]  # needs 2/3 (0.76 passes), 3/4 (0.74 fails), 4/5


@pytest.mark.parametrize(
    ("confidence", "tail", "expected"),
    [
        ([0.9, 0.8, 0.1], False, [0, 1]),
        ([0.9, 0.8, 0.1], True, [0, 1, 2]),
        ([0.9, 0.5, 0.1], True, [0]),
        ([0.9, 0.1], True, [0, 1]),
    ],
)
def test_reference_tail_fills_a_lone_last_failure_only(
    confidence: list[float], tail: bool, expected: list[int]
) -> None:
    block = Block(confidence=confidence, knobs={"factor": 1.0, "reference_tail": tail})
    assert filled("factor", block) == [expected]


def test_a_huge_factor_fills_everything() -> None:
    assert filled("factor", Block(confidence=[0.0, 0.1, 0.0], knobs={"factor": 1e30})) == [[0, 1, 2]]
