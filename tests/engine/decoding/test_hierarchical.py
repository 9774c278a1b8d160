"""The best of every masked run, all that is sure, and always the best of the block."""

from __future__ import annotations

from tests.helpers.decoding import Block, filled

KNOBS = {"threshold": 0.9, "low_threshold": 0.4}


def test_the_best_of_each_run_is_filled() -> None:
    masked = [True, True, False, True, True, True]
    block = Block(confidence=[0.5, 0.6, 1.0, 0.7, 0.45, 0.5], masked=masked, knobs=KNOBS)
    assert filled("hierarchical", block) == [[1, 3]]


def test_a_run_below_the_low_threshold_waits() -> None:
    block = Block(confidence=[0.39, 1.0, 0.8], masked=[True, False, True], knobs=KNOBS)
    assert filled("hierarchical", block) == [[2]]


def test_all_that_exceed_the_threshold_are_filled() -> None:
    assert filled("hierarchical", Block(confidence=[0.95, 0.91, 0.9, 0.2], knobs=KNOBS)) == [[0, 1]]


def test_the_best_of_the_block_is_filled_below_every_threshold() -> None:
    block = Block(confidence=[0.1, 1.0, 0.3, 0.3], masked=[True, False, True, True], knobs=KNOBS)
    assert filled("hierarchical", block) == [[2]]


def test_exact_ties_of_a_run_all_qualify() -> None:
    assert filled("hierarchical", Block(confidence=[0.5, 0.7, 0.2, 0.7], knobs=KNOBS)) == [[1, 3]]


def test_rows_are_split_by_their_own_runs() -> None:
    rows = [
        Block(confidence=[0.5, 0.6, 0.7], knobs=KNOBS),
        Block(confidence=[0.5, 0.6, 0.7], masked=[True, False, True], knobs=KNOBS),
    ]
    assert filled("hierarchical", *rows) == [[2], [0, 2]]
