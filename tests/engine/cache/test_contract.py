"""What every registered cache policy promises, for every attention pattern that it suits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from engine.cache import CACHE_POLICIES
from engine.cache.policy import AttentionPattern, CachePolicy
from engine.columns import knob_columns
from tests.helpers.progress import State, progress_of, rows_of, states

PAIRS: list[tuple[str, AttentionPattern]] = [
    (name, pattern) for name in CACHE_POLICIES for pattern in sorted(CACHE_POLICIES.get(name).patterns)
]
TAKERS = [name for name in CACHE_POLICIES if CACHE_POLICIES.get(name).takes_over]


def make(name: str, pattern: AttentionPattern, *, fused: bool = True) -> CachePolicy:
    return CACHE_POLICIES.get(name)(pattern, fused=fused)


@st.composite
def forwards(draw: st.DrawFn) -> tuple[CachePolicy, list[State]]:
    name, pattern = draw(st.sampled_from(PAIRS))
    policy = make(name, pattern, fused=draw(st.booleans()))
    sequences = draw(st.lists(states(pattern), min_size=1, max_size=5))
    if not policy.exact:  # only exact policies commit a last block
        sequences = [state for state in sequences if state.block_end > state.block_start]
    return policy, sequences or [State(canvas_len=2, block_start=0, block_end=2, block_length=2)]


@given(forwards())
def test_rows_are_ordered_and_attend_to_what_they_store(forward: tuple[CachePolicy, list[State]]) -> None:
    policy, sequences = forward
    spans = policy.spans(progress_of(*sequences))
    assert np.all(np.diff(spans.owner_R) >= 0)
    for n, state in enumerate(sequences):
        rows = rows_of(spans, n)
        assert rows, "every sequence gets something to do"
        previous_end = 0
        for q_start, q_end, kv_start, kv_end in rows:
            assert previous_end <= q_start < q_end
            assert 0 <= kv_start <= q_start
            assert q_end <= kv_end <= state.canvas_len
            previous_end = q_end


@given(forwards())
def test_the_block_lies_in_exactly_the_decode_row(forward: tuple[CachePolicy, list[State]]) -> None:
    policy, sequences = forward
    spans = policy.spans(progress_of(*sequences))
    for n, state in enumerate(sequences):
        decode_row = int(spans.decode_row[n])
        if decode_row < 0:
            assert all(q_end <= state.block_start for _, q_end, _, _ in rows_of(spans, n))
            continue
        assert spans.owner_R[decode_row] == n
        assert state.block_end > state.block_start
        assert spans.q_start_R[decode_row] <= state.block_start
        assert state.block_end <= spans.q_end_R[decode_row]
        covering = [row for row in rows_of(spans, n) if row[0] < state.block_end and row[1] > state.block_start]
        assert len(covering) == 1


@given(forwards())
def test_the_final_prefix_grows_only_by_what_is_computed_and_decided(forward: tuple[CachePolicy, list[State]]) -> None:
    policy, sequences = forward
    spans = policy.spans(progress_of(*sequences))
    for n, state in enumerate(sequences):
        after = int(spans.cached_len[n])
        assert state.cached_len <= after <= state.block_start
        computed = {position for start, end, _, _ in rows_of(spans, n) for position in range(start, end)}
        assert set(range(state.cached_len, after)) <= computed
        assert policy.exact or after == state.cached_len


@given(forwards())
def test_sequences_do_not_depend_on_each_other(forward: tuple[CachePolicy, list[State]]) -> None:
    policy, sequences = forward
    together = policy.spans(progress_of(*sequences))
    for n, state in enumerate(sequences):
        alone = policy.spans(progress_of(state))
        assert rows_of(alone, 0) == rows_of(together, n)
        assert alone.cached_len[0] == together.cached_len[n]
        first = int(np.flatnonzero(together.owner_R == n)[0])
        expected = alone.decode_row[0] + first if alone.decode_row[0] >= 0 else -1
        assert together.decode_row[n] == expected


@given(st.sampled_from(TAKERS), states("bidirectional"))
def test_a_canvas_that_is_taken_over_spares_a_pass_and_changes_no_later_step(name: str, state: State) -> None:
    policy, everything = make(name, "bidirectional"), (0, state.canvas_len, 0, state.canvas_len)
    first = replace(state, step=0, refreshed=False, stale_steps=-1)
    assert rows_of(policy.spans(progress_of(first)), 0) == [everything], "else it has no first pass"
    cold = replace(first, total_steps=0, refreshed=True, stale_steps=0)
    ((q_start, q_end, *keys),) = rows_of(policy.spans(progress_of(cold)), 0)
    assert q_start == 0 or q_start >= state.block_start - 3
    assert q_end >= state.block_end
    assert keys == [0, state.canvas_len]
    later = replace(state, step=max(state.step, 1), total_steps=max(state.total_steps, 1), refreshed=True)
    own, taken = replace(later, refreshes=1, fresh=True, stale_steps=0), replace(later, stale_steps=1)
    assert rows_of(policy.spans(progress_of(own)), 0) == rows_of(policy.spans(progress_of(taken)), 0)


def test_who_takes_over_canvases() -> None:
    assert sorted(TAKERS) == ["dual", "prefix", "vicinity"]


@pytest.mark.parametrize(("name", "pattern"), PAIRS)
def test_a_sequence_left_to_a_policy_reaches_its_decode_row(name: str, pattern: AttentionPattern) -> None:
    """However small the chunks, prefill and commits end."""
    policy = make(name, pattern)
    cached_len, forwards_taken = 0, 0
    while True:
        state = State(canvas_len=40, block_start=36, block_end=40, block_length=4, cached_len=cached_len, chunk_len=9)
        spans = policy.spans(progress_of(state))
        forwards_taken += 1
        if spans.decode_row[0] >= 0:
            break
        assert spans.cached_len[0] > cached_len
        cached_len = int(spans.cached_len[0])
    assert forwards_taken <= 10


@pytest.mark.parametrize("name", sorted(CACHE_POLICIES))
def test_every_policy_describes_itself_and_its_knobs(name: str) -> None:
    policy = CACHE_POLICIES.get(name)
    assert policy.summary
    assert policy.source
    assert policy.patterns
    assert set(knob_columns(policy.Params)) == set(TypeAdapter(policy.Params).json_schema().get("properties", {}))
