"""Everything at least this confident, and always the best."""

from __future__ import annotations

from tests.helpers.decoding import Block, filled


def test_fills_all_that_reach_the_threshold() -> None:
    block = Block(confidence=[0.9, 0.95, 0.5, 0.91], knobs={"threshold": 0.9})
    assert filled("threshold", block) == [[0, 1, 3]]


def test_the_best_is_filled_below_the_threshold_and_ties_go_to_the_smaller_position() -> None:
    assert filled("threshold", Block(confidence=[0.1, 0.4, 0.2, 0.4], knobs={"threshold": 0.9})) == [[1]]


def test_decided_positions_do_not_count() -> None:
    block = Block(confidence=[1.0, 0.3, 1.0], masked=[False, True, False], knobs={"threshold": 0.9})
    assert filled("threshold", block) == [[1]]


def test_each_row_has_its_own_threshold() -> None:
    confidence = [0.2, 0.6, 0.8]
    rows = [Block(confidence=confidence, knobs={"threshold": value}) for value in (0.0, 0.5, 0.7, 1.0)]
    assert filled("threshold", *rows) == [[0, 1, 2], [1, 2], [2], [2]]
