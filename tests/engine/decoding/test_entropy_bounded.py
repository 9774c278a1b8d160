"""Lowest entropies first while their sum stays below gamma."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.decoding import Block, filled


def reference(entropy: list[float], gamma: float) -> list[int]:
    order = sorted(range(len(entropy)), key=lambda i: (entropy[i], i))
    total, count = np.float32(0), 0
    for position in order:
        total += np.float32(entropy[position])
        if not total < np.float32(gamma):
            break
        count += 1
    return sorted(order[: max(count, 1)])


@given(
    st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.5]), min_size=1, max_size=9), st.sampled_from([0.1, 0.375, 2.0])
)
def test_fills_the_lowest_entropies_below_the_bound(entropy: list[float], gamma: float) -> None:
    block = Block(confidence=[0.5] * len(entropy), entropy=entropy, knobs={"gamma": gamma})
    assert filled("entropy_bounded", block) == [reference(entropy, gamma)]


def test_the_sum_must_stay_strictly_below_gamma() -> None:
    block = Block(confidence=[0.5] * 3, entropy=[0.25, 0.125, 0.125], knobs={"gamma": 0.25})
    assert filled("entropy_bounded", block) == [[1]]


def test_at_least_one_and_ties_to_the_smaller_position() -> None:
    block = Block(confidence=[0.5] * 3, entropy=[2.0, 1.0, 1.0], knobs={"gamma": 0.25})
    assert filled("entropy_bounded", block) == [[1]]


def test_decided_positions_neither_count_nor_are_written() -> None:
    block = Block(
        confidence=[0.5] * 4, masked=[False, True, False, True], entropy=[0.0, 0.2, 0.0, 0.1], knobs={"gamma": 0.35}
    )
    assert filled("entropy_bounded", block, padding=2) == [[1, 3]]
