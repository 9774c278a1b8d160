"""Canvases that requests have in common: one computes them first, the others take over the K/V of its first pass.

In a bidirectional model the K/V of a position depend on the whole canvas, masks and their number included. So only
requests whose canvases are equal as a whole have K/V in common, and only until the first token is decided: samples of a
prompt, strategies that are compared on it, another try. What a strategy decides its first block by are the logits of
that block, so with these K/V its first step needs no more positions than any other step inside a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field, replace

import numpy as np

from engine.cache.block_manager import BlockManager, KVCopy
from engine.cache.policy import CachePolicy
from engine.cache.prefix_keys import canvas_keys
from engine.sequence import Sequence
from engine.sharing import MIN_GAIN, Sharing
from engine.slots import SlotTable


@dataclass(slots=True)
class _Canvas:
    """A canvas whose first pass is still to come: the keys of its pages, whether its request would take it over, how
    many positions stand before those that it then computes, for whom it waits, and who waits for it."""

    keys: SequenceOf[bytes]
    follows: bool
    reused: int
    leader: int = -1
    followers: list[int] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        """All of the canvas."""
        return self.keys[0]


class CanvasSharing(Sharing):
    """Owns who computes which canvas (``_leaders``), who has since the last plan (``_done``: the K/V in its slot are
    still those of its first pass) and the copies that the next plan has to make. Of every first pass a copy is kept in
    free pages, if there are enough. Loops run over requests that come, leave, or have just had their first pass."""

    def __init__(self, blocks: BlockManager, slots: SlotTable, policies: Mapping[str, CachePolicy]) -> None:
        self._blocks = blocks
        self._slots = slots
        self._policies = policies
        self._canvases: dict[int, _Canvas] = {}
        self._leaders: dict[bytes, int] = {}
        self._done: dict[bytes, int] = {}
        self._copies: list[KVCopy] = []

    def open(self, sequence: Sequence, copies: SequenceOf[KVCopy]) -> None:
        """Requests with two canvases, and those whose steps follow from more than their block (``repeatable``), take no
        part."""
        self._copies += copies
        policy = self._policies[sequence.strategy.cache]
        if sequence.repeatable and sequence.num_slots == 1 and policy.sees_canvas:
            self._canvases[sequence.slot] = self._canvas(sequence, policy)
            self._place(sequence.slot)

    def computed(self, slot: int) -> None:
        canvas, length = self._canvases.pop(slot), int(self._slots.canvas_len[slot])
        del self._leaders[canvas.key]
        self._slots.given_len[slot] = 0
        self._done[canvas.key] = slot
        for follower in canvas.followers:
            self._take_over(follower, self._blocks.copy_slot(slot, follower, length))
        self._copies += self._blocks.keep(slot, canvas.keys, length)

    def close(self, slot: int) -> None:
        """Where others wait for the request, one of them computes the canvas."""
        self._done = {key: done for key, done in self._done.items() if done != slot}
        canvas = self._canvases.pop(slot, None)
        if canvas is None:
            return
        if canvas.leader >= 0:
            self._canvases[canvas.leader].followers.remove(slot)
            return
        del self._leaders[canvas.key]
        for follower in canvas.followers:
            self._place(follower)

    def take_copies(self) -> tuple[KVCopy, ...]:
        taken, self._copies = tuple(self._copies), []
        self._done.clear()
        return taken

    def _canvas(self, sequence: Sequence, policy: CachePolicy) -> _Canvas:
        """What the request would be spared, its policy says itself."""
        slot, slots = np.array([sequence.slot]), self._slots
        length = int(slots.canvas_len[sequence.slot])
        tokens, num_pages = slots.tokens[sequence.slot, :length], self._blocks.pages_for(length)
        keys = canvas_keys(tokens, num_pages, sequence.request.cache_salt)
        if not policy.takes_over:
            return _Canvas(keys, follows=False, reused=0)
        progress = slots.progress(slot, slots.canvas_len[slot])
        taken_over = replace(progress, refreshed=np.ones(1, np.bool_), stale_steps=np.zeros(1, np.int64))
        spans = policy.spans(taken_over)
        num_computed = int((spans.q_end_R - spans.q_start_R).sum())
        return _Canvas(keys, follows=length - num_computed >= MIN_GAIN, reused=int(spans.q_start_R[0]))

    def _place(self, slot: int) -> None:
        """Have ``slot`` take over its canvas, wait for whoever computes it, or compute it."""
        canvas, length = self._canvases[slot], int(self._slots.canvas_len[slot])
        leader = self._leaders.get(canvas.key, -1)
        canvas.leader, self._slots.paused[slot] = -1, False
        if canvas.follows and (copies := self._known(slot, canvas, length)):
            self._take_over(slot, copies)
        elif canvas.follows and leader >= 0:
            canvas.leader, self._slots.paused[slot] = leader, True
            self._canvases[leader].followers.append(slot)
        elif leader >= 0:
            del self._canvases[slot]
        else:
            self._leaders[canvas.key], self._slots.given_len[slot] = slot, length

    def _known(self, slot: int, canvas: _Canvas, length: int) -> tuple[KVCopy, ...]:
        """Copies of the canvas from where its K/V are."""
        done = self._done.get(canvas.key, -1)
        if done >= 0:
            return self._blocks.copy_slot(done, slot, length)
        return self._blocks.recall(slot, canvas.keys, length)

    def _take_over(self, slot: int, copies: SequenceOf[KVCopy]) -> None:
        """``slot`` goes on as after a first pass of its own."""
        slots = self._slots
        self._copies += copies
        slots.reused[slot] += self._canvases.pop(slot).reused
        slots.paused[slot], slots.refreshed[slot], slots.stale_steps[slot] = False, True, 0
