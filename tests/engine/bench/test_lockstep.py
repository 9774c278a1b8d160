from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.bench.goldens.lockstep import block_bounds, block_steps, lock_step


def test_last_block_may_be_short() -> None:
    assert block_bounds(0, 10, 4) == [(0, 4), (4, 8), (8, 10)]


def test_steps_of_a_block_run_until_the_next_begins() -> None:
    assert block_steps([1, 2, 3, 3], [(0, 2), (2, 4)], 3) == [2, 1]


def test_idle_forwards_at_the_end_of_a_block_count() -> None:
    assert block_steps([1, 1, 4, 5], [(0, 2), (2, 4)], 6) == [3, 3]


def test_block_that_was_never_reached_took_no_steps() -> None:
    assert block_steps([1, 2, 0, 0], [(0, 2), (2, 4)], 2) == [2, 0]


def test_batch_waits_for_its_slowest_row_in_every_block() -> None:
    fast, slow = [1, 1, 2, 3], [1, 2, 3, 3]
    batch = lock_step([fast, slow], [(0, 2), (2, 4)], [3, 3])
    assert batch.forwards == 2 + 2
    assert batch.filled_at == [[1, 1, 3, 4], [1, 2, 3, 3]]


def test_position_that_stayed_masked_has_no_forward() -> None:
    assert lock_step([[1, 0]], [(0, 2)], [1]).filled_at == [[1, -1]]


@given(st.lists(st.lists(st.integers(1, 4), min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_batch_needs_at_least_its_slowest_row_and_alone_a_row_is_unchanged(widths: list[list[int]]) -> None:
    """Rows with blocks of one token each; ``widths`` are their steps per block, all but the first idle."""
    blocks = block_bounds(0, 3, 1)
    rows = [[1, 1 + a, 1 + a + b] for a, b, _ in widths]
    totals = [sum(row) for row in widths]
    batch = lock_step(rows, blocks, totals)
    assert batch.forwards == sum(max(column) for column in zip(*widths, strict=True)) >= max(totals)
    for row, total in zip(rows, totals, strict=True):
        alone = lock_step([row], blocks, [total])
        assert (alone.forwards, alone.filled_at) == (total, [row])
