"""Prompts that several running requests have in common: one computes them, the others wait for its K/V.

K/V of finished requests are found by :class:`engine.cache.block_manager.BlockManager` when a request gets its pages.
Here is what happens between requests that run at the same time, such as several samples of one prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from engine.cache.block_manager import BlockManager, KVCopy
from engine.cache.prefix_keys import block_keys
from engine.sequence import Sequence
from engine.slots import SlotTable

MIN_GAIN = 32
"""Positions that a request must be spared so that it waits for them."""


class Sharing(ABC):
    """Which running requests compute something for others too, and who waits for it (``paused``). Where a slot has a
    ``given_len``, :meth:`computed` is called as soon as so many positions, or all of its canvas, have their K/V."""

    @abstractmethod
    def open(self, sequence: Sequence, copies: SequenceOf[KVCopy]) -> None:
        """A request begins in its slot; K/V before the slot's ``cached_len`` are there after ``copies``."""

    @abstractmethod
    def computed(self, slot: int) -> None:
        """What is given of ``slot`` has its K/V: others may have them."""

    @abstractmethod
    def close(self, slot: int) -> None:
        """The request in ``slot`` leaves it; its pages are still its own."""

    @abstractmethod
    def take_copies(self) -> tuple[KVCopy, ...]:
        """What the next plan has to copy, in order. Its forward comes next."""


@dataclass(slots=True)
class _Prompt:
    """The whole blocks of a running request that are given, how many of them have K/V or will get them from the request
    that is waited for, and who waits for this one."""

    keys: SequenceOf[bytes]
    block_length: int
    salt: str
    maker: int = -1
    followers: list[int] = field(default_factory=list)


class PrefixSharing(Sharing):
    """Owns who computes which blocks of prompts (``_makers``) and the copies that the next plan has to make. A slot
    that waits is ``paused``. Loops run over requests that come, end, or have just computed their prompt."""

    def __init__(self, blocks: BlockManager, slots: SlotTable) -> None:
        self._blocks = blocks
        self._slots = slots
        self._prompts: dict[int, _Prompt] = {}
        self._makers: dict[bytes, int] = {}
        self._copies: list[KVCopy] = []

    def open(self, sequence: Sequence, copies: SequenceOf[KVCopy]) -> None:
        self._copies += copies
        if sequence.prefix_keys:
            slot, salt = sequence.slot, sequence.request.cache_salt
            self._prompts[slot] = _Prompt(sequence.prefix_keys, int(self._slots.block_length[slot]), salt)
            self._place(slot)

    def computed(self, slot: int) -> None:
        prompt = self._prompts[slot]
        self._blocks.register(slot, prompt.keys, prompt.block_length)
        self._dismiss(slot, prompt)

    def close(self, slot: int) -> None:
        """What the request has committed stays known as long as its pages are not needed."""
        prompt = self._prompts.pop(slot, None)
        if prompt is None:
            return
        tokens = self._slots.tokens[slot, : self._slots.cached_len[slot]]
        num_known = min(len(prompt.keys), len(tokens) // prompt.block_length)
        keys = block_keys(tokens.tolist(), prompt.block_length, prompt.salt, prompt.keys[:num_known])
        if prompt.maker < 0:
            self._blocks.register(slot, keys, prompt.block_length)
        else:
            self._prompts[prompt.maker].followers.remove(slot)
        self._dismiss(slot, prompt)

    def take_copies(self) -> tuple[KVCopy, ...]:
        taken, self._copies = tuple(self._copies), []
        return taken

    def _place(self, slot: int) -> None:
        """Have ``slot`` wait for whoever computes more of its prompt than is there, or compute the rest itself."""
        prompt = self._prompts[slot]
        first = number = int(self._slots.cached_len[slot]) // prompt.block_length
        maker = -1
        while number < len(prompt.keys) and (owner := self._makers.get(prompt.keys[number], -1)) >= 0:
            maker, number = owner, number + 1
        waits = (number - first) * prompt.block_length >= MIN_GAIN
        prompt.maker = maker if waits else -1
        self._slots.paused[slot] = waits
        self._slots.given_len[slot] = 0 if waits else len(prompt.keys) * prompt.block_length
        if waits:
            self._prompts[maker].followers.append(slot)
            return
        for key in prompt.keys[first:]:
            self._makers.setdefault(key, slot)

    def _dismiss(self, slot: int, prompt: _Prompt) -> None:
        """Nobody needs to wait for ``slot`` any more."""
        for key in prompt.keys:
            if self._makers.get(key) == slot:
                del self._makers[key]
        followers, prompt.followers = prompt.followers, []
        self._slots.given_len[slot] = 0
        for follower in followers:
            theirs = self._prompts[follower]
            num_known = int(self._slots.cached_len[follower]) // theirs.block_length
            news = self._blocks.catch_up(follower, theirs.keys, theirs.block_length, num_known)
            self._copies += news.copies
            self._slots.reused[follower] += news.cached_len - self._slots.cached_len[follower]
            self._slots.cached_len[follower] = news.cached_len
            self._place(follower)
