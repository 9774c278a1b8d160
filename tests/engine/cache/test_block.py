"""The exact cache of block-causal models: commits and prefill ride along, or take forwards of their own."""

from __future__ import annotations

from hypothesis import given

from engine.cache.block import BlockCache
from engine.cache.none import NoCache
from tests.helpers.progress import Row, State, progress_of, rows_of, states


def reference(state: State, *, fused: bool) -> tuple[list[Row], bool, int]:
    """Rows, whether the block is decoded, and the new final prefix, one block at a time."""
    length = state.block_length
    pending = list(range(state.cached_len, state.block_start, length))
    room = max(state.chunk_len // length, 1)
    wants_decode = state.block_end > state.block_start
    decodes = wants_decode and (len(pending) + 1 <= room if fused else not pending)
    commits = pending if decodes else pending[:room]
    rows = [(start, start + length, 0, start + length) for start in commits]
    if decodes:
        rows.append((state.block_start, state.block_end, 0, state.block_end))
    return rows, decodes, state.cached_len + len(commits) * length


@given(states("block_causal"))
def test_rows_equal_the_plain_definition(state: State) -> None:
    for fused in (True, False):
        spans = BlockCache("block_causal", fused=fused).spans(progress_of(state))
        expected, decodes, cached_len = reference(state, fused=fused)
        assert rows_of(spans, 0) == expected
        assert spans.decode_row.tolist() == [len(expected) - 1 if decodes else -1]
        assert spans.cached_len.tolist() == [cached_len]


def test_the_commit_of_a_block_rides_with_the_first_step_of_the_next() -> None:
    state = State(canvas_len=16, block_start=8, block_end=12, block_length=4, cached_len=4)
    assert rows_of(BlockCache("block_causal").spans(progress_of(state)), 0) == [(4, 8, 0, 8), (8, 12, 0, 12)]
    alone = BlockCache("block_causal", fused=False).spans(progress_of(state))
    assert rows_of(alone, 0) == [(4, 8, 0, 8)]
    assert alone.decode_row.tolist() == [-1]


@given(states("block_causal"))
def test_without_a_cache_every_block_up_to_the_current_is_computed(state: State) -> None:
    if state.block_end == state.block_start:
        return
    spans = NoCache("block_causal").spans(progress_of(state))
    starts = range(0, state.block_end, state.block_length)
    assert rows_of(spans, 0) == [(at, at + state.block_length, 0, at + state.block_length) for at in starts]
    assert spans.cached_len.tolist() == [state.cached_len]
