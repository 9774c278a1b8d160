"""Pages: every page is free or owned by exactly one slot, whatever the order of events."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.cache.block_manager import BlockManager

SLOTS, PAGES, PAGE_SIZE, MAX_LEN = 4, 9, 4, 14


class Pages(RuleBasedStateMachine):
    """Random allocations and releases against a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockManager(SLOTS, PAGES, PAGE_SIZE, MAX_LEN)
        self.owned: dict[int, list[int]] = {}

    @precondition(lambda self: len(self.owned) < SLOTS)
    @rule(data=st.data(), positions=st.integers(1, MAX_LEN))
    def allocate(self, data: st.DataObject, positions: int) -> None:
        slot = data.draw(st.sampled_from(sorted(set(range(SLOTS)) - set(self.owned))))
        count = -(-positions // PAGE_SIZE)
        assert self.blocks.pages_for(positions) == count
        if count > self.blocks.num_free_pages:
            with pytest.raises(AssertionError):
                self.blocks.allocate(slot, positions)
            return
        row = self.blocks.allocate(slot, positions).pages.tolist()
        assert row[count:] == [-1] * (len(row) - count)
        self.owned[slot] = row[:count]

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.owned)))
        self.blocks.release(slot)
        del self.owned[slot]

    @invariant()
    def every_page_has_one_owner(self) -> None:
        self.blocks.check()
        pages = [page for row in self.owned.values() for page in row]
        assert len(pages) == len(set(pages))
        assert self.blocks.num_free_pages == PAGES - len(pages)
        for slot in range(SLOTS):
            assert [page for page in self.blocks.page_table[slot] if page >= 0] == self.owned.get(slot, [])


TestPages = Pages.TestCase


def test_check_notices_a_page_that_is_owned_twice() -> None:
    blocks = BlockManager(2, 4, 4, 8)
    blocks.allocate(0, 8)
    blocks.page_table[1, 0] = blocks.page_table[0, 0]
    with pytest.raises(AssertionError, match="owned twice"):
        blocks.check()


def test_check_notices_a_lost_page() -> None:
    blocks = BlockManager(2, 4, 4, 8)
    blocks.allocate(0, 8)
    blocks.page_table[0] = -1
    with pytest.raises(AssertionError, match="lost"):
        blocks.check()


def test_a_slot_that_owns_pages_cannot_get_more() -> None:
    blocks = BlockManager(2, 4, 4, 8)
    blocks.allocate(0, 4)
    with pytest.raises(AssertionError, match="still owns"):
        blocks.allocate(0, 4)
