"""What a slot is given of K/V that are known: it holds what its keys say, whatever came and went before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.cache.block_manager import Allocation, BlockManager, KVCopy
from engine.cache.prefix_index import PrefixIndex
from engine.cache.prefix_keys import block_keys

TOKENS = st.lists(st.integers(0, 1), max_size=14)


@given(TOKENS, TOKENS, st.sampled_from([1, 2, 4]), st.sampled_from(["", "a"]))
def test_equal_keys_mean_equal_beginnings(one: list[int], other: list[int], length: int, salt: str) -> None:
    mine, theirs = block_keys(one, length), block_keys(other, length, salt)
    assert (len(mine), len(theirs)) == (len(one) // length, len(other) // length)
    for number, (a, b) in enumerate(zip(mine, theirs, strict=False), 1):
        assert (a == b) == (one[: number * length] == other[: number * length] and not salt)
    assert block_keys(one, length, known=mine[:1]) == mine


def test_blocks_of_another_length_have_other_keys() -> None:
    assert set(block_keys([1] * 8, 2)).isdisjoint(block_keys([1] * 8, 4))


def test_of_equal_blocks_the_last_one_counts() -> None:
    index = PrefixIndex()
    for page in (3, 5):
        index.add(b"a", page)
    index.add(b"b", 3)
    assert index.pages([b"a", b"b", b"c", b"a"]) == [5, 3]
    index.forget(5)
    assert index.pages([b"a"]) == []
    assert index.holds(3)
    index.check()


class Reuse(RuleBasedStateMachine):
    """Requests over a memory in which every position holds the tokens that its K/V depend on."""

    PAGE, PAGES, SLOTS, LEN, BLOCK = 4, 9, 3, 12, 2

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockManager(self.SLOTS, self.PAGES, self.PAGE, self.LEN)
        self.memory: dict[tuple[int, int], tuple[int, ...]] = {}
        self.running: dict[int, list[int]] = {}

    def copy(self, copies: tuple[KVCopy, ...]) -> None:
        for one in copies:
            for offset in range(one.start, one.end):
                self.memory[one.target, offset] = self.memory[one.source, offset]

    def write(self, slot: int, start: int, end: int) -> None:
        """Store K/V as a forward does; committed positions of others must not be touched."""
        for position in range(start, end):
            page = int(self.blocks.page_table[slot, position // self.PAGE])
            whole = self.running[slot][: (position // self.BLOCK + 1) * self.BLOCK]
            self.memory[page, position % self.PAGE] = tuple(whole)

    @precondition(lambda self: len(self.running) < self.SLOTS)
    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=10), registers=st.booleans())
    def open(self, tokens: list[int], registers: bool) -> None:
        keys = block_keys(tokens, self.BLOCK)
        length = len(tokens) // self.BLOCK * self.BLOCK
        if self.blocks.pages_for(length + self.BLOCK) > self.blocks.num_free_pages:
            return
        slot = min(set(range(self.SLOTS)) - set(self.running))
        got: Allocation = self.blocks.allocate(slot, length + self.BLOCK, keys, self.BLOCK)
        self.running[slot] = tokens[:length]
        self.copy(got.copies)
        assert got.cached_len <= length
        self.check(slot, got.cached_len)
        self.write(slot, got.cached_len, length)
        if registers:
            self.blocks.register(slot, keys, self.BLOCK)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.running)))
        self.check(slot, len(self.running[slot]))
        del self.running[slot]
        self.blocks.release(slot)

    def check(self, slot: int, end: int) -> None:
        for position in range(end):
            page = int(self.blocks.page_table[slot, position // self.PAGE])
            whole = self.running[slot][: (position // self.BLOCK + 1) * self.BLOCK]
            assert self.memory[page, position % self.PAGE] == tuple(whole)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.blocks.check()
        for slot, tokens in self.running.items():
            self.check(slot, len(tokens))


class SlotPages(Reuse):
    """A page holds a whole slot, as on CPUs."""

    PAGE, PAGES = 12, 3


TestReuse = Reuse.TestCase
TestSlotPages = SlotPages.TestCase


def test_whole_pages_are_shared_and_the_rest_is_copied() -> None:
    blocks = BlockManager(2, 8, 4, 16)
    keys = block_keys(range(12), 2)
    first = blocks.allocate(0, 14, keys, 2)
    blocks.register(0, keys, 2)
    second = blocks.allocate(1, 12, keys[:5], 2)
    assert second.cached_len == 10
    assert second.pages[:2].tolist() == first.pages[:2].tolist()
    assert second.copies == (KVCopy(int(first.pages[2]), int(second.pages[2]), 0, 2),)
    assert blocks.num_free_pages == 8 - 4 - 1
    blocks.release(0)
    blocks.check()
    assert blocks.num_free_pages == 8 - 3


def test_the_only_free_page_is_taken_over_with_what_is_in_it() -> None:
    blocks = BlockManager(1, 1, 16, 16)
    keys = block_keys(range(12), 4)
    blocks.allocate(0, 16, keys, 4)
    blocks.register(0, keys, 4)
    blocks.release(0)
    again = blocks.allocate(0, 12, keys[:2], 4)
    assert (again.cached_len, again.copies) == (8, ())
    blocks.release(0)
    assert blocks.allocate(0, 16, keys, 4).cached_len == 8, "what was behind is written anew"


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    blocks = BlockManager(1, 2, 8, 8)
    old, new, newest = (block_keys([token] * 8, 4) for token in (1, 2, 3))
    for keys in (old, new, newest):
        blocks.allocate(0, 8, keys, 4)
        blocks.register(0, keys, 4)
        blocks.release(0)
    assert blocks.allocate(0, 8, new[:1], 4).cached_len == 4
    blocks.release(0)
    assert blocks.allocate(0, 8, old[:1], 4).cached_len == 0


def test_blocks_across_pages_are_not_shared() -> None:
    blocks = BlockManager(2, 8, 4, 16)
    keys = block_keys(range(12), 3)
    blocks.allocate(0, 14, keys, 3)
    blocks.register(0, keys, 3)
    assert blocks.allocate(1, 14, keys, 3).cached_len == 0


def test_a_slot_catches_up_with_what_has_become_known() -> None:
    blocks = BlockManager(2, 2, 16, 16)
    keys = block_keys(range(12), 4)
    blocks.allocate(0, 16, keys, 4)
    waiting = blocks.allocate(1, 16, keys, 4)
    assert waiting.cached_len == 0
    blocks.register(0, keys, 4)
    news = blocks.catch_up(1, keys, 4, num_known=1)
    assert (news.cached_len, [(one.start, one.end) for one in news.copies]) == (12, [(4, 12)])
    assert np.array_equal(news.pages, waiting.pages)


@pytest.mark.parametrize("page_size", [4, 16])
def test_free_pages_without_content_go_first(page_size: int) -> None:
    blocks = BlockManager(2, 32 // page_size, page_size, 16)
    keys = block_keys(range(8), 4)
    for slot, names in ((0, keys), (1, ())):
        blocks.allocate(slot, 12, names, 4)
        blocks.register(slot, names, 4)
    blocks.release(1)
    blocks.release(0)
    blocks.allocate(1, 12)
    assert blocks.allocate(0, 12, keys, 4).cached_len == 8
