"""Rows laid end to end."""

from __future__ import annotations

from tests.helpers.networks import rows


def test_tokens_of_rows_are_their_query_spans_end_to_end() -> None:
    plan = rows((2, 4, 7, 0, 9), (0, 0, 2, 0, 2), (2, 8, 9, 0, 9))
    slot_T, position_T = plan.tokens()
    assert plan.offset_R.tolist() == [0, 3, 5]
    assert slot_T.tolist() == [2, 2, 2, 0, 0, 2]
    assert position_T.tolist() == [4, 5, 6, 0, 1, 8]
