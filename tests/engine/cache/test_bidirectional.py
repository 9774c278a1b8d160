"""Refresh once per block, then less than the whole canvas."""

from __future__ import annotations

import pytest
from hypothesis import given

from engine.cache.bidirectional import DualCache, PrefixCache
from engine.cache.none import NoCache
from tests.helpers.progress import Row, State, progress_of, rows_of, states


def rows(policy: type[PrefixCache | DualCache | NoCache], state: State, lead: int = 0) -> list[Row]:
    spans = policy("bidirectional", lead=lead).spans(progress_of(state))
    assert spans.decode_row.tolist() == [0]
    return rows_of(spans, 0)


@given(states("bidirectional"))
def test_spans_are_those_of_the_table_in_the_design(state: State) -> None:
    everything = (0, state.canvas_len, 0, state.canvas_len)
    prefix = (state.block_start, state.canvas_len, 0, state.canvas_len)
    dual = (state.block_start, state.block_end, 0, state.canvas_len)

    assert rows(NoCache, state) == [everything]
    assert rows(PrefixCache, state) == [prefix if state.refreshed else everything]
    assert rows(DualCache, state) == [dual if state.refreshed else everything]


@pytest.mark.parametrize(("policy", "end"), [(PrefixCache, 20), (DualCache, 12)])
def test_a_shifted_model_computes_the_position_before_the_block_too(
    policy: type[PrefixCache | DualCache], end: int
) -> None:
    state = State(canvas_len=20, block_start=8, block_end=12, block_length=4, step=1, refreshed=True)
    assert rows(policy, state, lead=1) == [(7, end, 0, 20)]
