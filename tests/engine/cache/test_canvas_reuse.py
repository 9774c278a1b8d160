"""Canvases that are kept in free pages: what is recalled is the first pass of the same canvas, whatever came since."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.cache.block_manager import BlockManager, KVCopy
from engine.cache.prefix_keys import canvas_keys

TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=11)


@given(TOKENS, TOKENS, st.sampled_from(["", "a"]))
def test_only_equal_canvases_of_a_salt_have_equal_keys(one: list[int], other: list[int], salt: str) -> None:
    mine, theirs = canvas_keys(np.array(one), 2), canvas_keys(np.array(other), 2, salt)
    assert len({*mine}) == 2
    assert (mine == theirs) == (one == other and not salt)
    assert (mine == theirs) != set(mine).isdisjoint(theirs)


class Canvases(RuleBasedStateMachine):
    """Requests over a memory in which every position holds the canvas that its K/V depend on."""

    PAGE, PAGES, SLOTS, LEN = 4, 8, 3, 11

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockManager(self.SLOTS, self.PAGES, self.PAGE, self.LEN)
        self.memory: dict[tuple[int, int], object] = {}
        self.lengths: dict[int, int] = {}

    def copy(self, copies: tuple[KVCopy, ...]) -> None:
        for one in copies:
            for offset in range(one.start, one.end):
                self.memory[one.target, offset] = self.memory[one.source, offset]

    def places(self, slot: int) -> list[tuple[int, int]]:
        table = self.blocks.page_table[slot]
        return [(int(table[at // self.PAGE]), at % self.PAGE) for at in range(self.lengths[slot])]

    def write(self, slot: int, canvas: object) -> None:
        self.memory |= dict.fromkeys(self.places(slot), canvas)

    @precondition(lambda self: len(self.lengths) < self.SLOTS)
    @rule(tokens=TOKENS)
    def open(self, tokens: list[int]) -> None:
        length, count = len(tokens), self.blocks.pages_for(len(tokens))
        if count > self.blocks.num_free_pages:
            return
        slot = min(set(range(self.SLOTS)) - set(self.lengths))
        self.blocks.allocate(slot, length)
        self.lengths[slot] = length
        keys = canvas_keys(np.array(tokens), count)
        recalled = self.blocks.recall(slot, keys, length)
        if recalled:
            self.copy(recalled)
        else:
            self.write(slot, tuple(tokens))
            self.copy(self.blocks.keep(slot, keys, length))
        assert {self.memory[place] for place in self.places(slot)} == {tuple(tokens)}

    @precondition(lambda self: self.lengths)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        self.write(data.draw(st.sampled_from(sorted(self.lengths))), "later")

    @precondition(lambda self: self.lengths)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.lengths)))
        del self.lengths[slot]
        self.blocks.release(slot)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.blocks.check()
        owned = sum(self.blocks.pages_for(length) for length in self.lengths.values())
        assert self.blocks.num_free_pages == self.PAGES - owned


class SlotPages(Canvases):
    """A page holds a whole slot, as on CPUs."""

    PAGE, PAGES = 11, 4


TestCanvases = Canvases.TestCase
TestSlotPages = SlotPages.TestCase
TestCanvases.settings = TestSlotPages.settings = settings(max_examples=40)


def test_a_canvas_is_recalled_whole_or_not_at_all() -> None:
    blocks = BlockManager(2, 7, 4, 12)
    keys = canvas_keys(np.arange(10), 3)
    blocks.allocate(0, 10)
    assert [one.end for one in blocks.keep(0, keys, 10)] == [4, 4, 2]
    assert blocks.keep(0, keys, 10) == (), "it is there already"
    blocks.allocate(1, 8)  # one free page was left: one of the kept ones goes
    assert blocks.recall(1, keys, 10) == ()
    assert blocks.keep(0, keys, 10) == (), "too few pages are free"
