"""Who runs: the waiting requests, the slots and the pages."""

from __future__ import annotations

import heapq

from engine.cache.block_manager import BlockManager
from engine.cache.policy import IntArray
from engine.errors import InvalidRequestError, OverloadedError
from engine.sequence import Sequence


class Scheduler:
    """Owns the waiting queue and the free slots, and asks the block manager for pages.

    Order is priority, then arrival. The head of the queue is never overtaken, so a large request cannot starve.
    """

    def __init__(self, num_slots: int, max_queue_len: int, blocks: BlockManager) -> None:
        self._max_queue_len = max_queue_len
        self._blocks = blocks
        self._free_slots = list(range(num_slots - 1, -1, -1))
        self._waiting: list[tuple[int, int, Sequence]] = []

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_free_slots(self) -> int:
        return len(self._free_slots)

    def add(self, sequence: Sequence) -> None:
        """Queue a request; OverloadedError when the queue is full, InvalidRequestError when it could never run."""
        pages = self._pages(sequence)
        if pages > self._blocks.num_pages:
            raise InvalidRequestError(
                f"the request needs {pages * self._blocks.page_size} positions of K/V memory, and the server has "
                f"{self._blocks.num_pages * self._blocks.page_size}; guidance takes them twice",
                "cfg_scale" if sequence.num_slots == 2 else "max_tokens",
            )
        if len(self._waiting) >= self._max_queue_len + self.num_free_slots:
            raise OverloadedError(
                f"the engine's queue is full ({self._max_queue_len} requests); try again later", "max_queue_len"
            )
        heapq.heappush(self._waiting, (sequence.request.priority, sequence.arrival, sequence))

    def remove(self, sequence: Sequence) -> None:
        """Take a waiting request out of the queue."""
        self._waiting = [entry for entry in self._waiting if entry[2] is not sequence]
        heapq.heapify(self._waiting)

    def admit(self) -> list[tuple[Sequence, list[IntArray]]]:
        """Give slots and pages to as many requests as fit; returns them with their page table rows."""
        admitted = []
        while self._waiting and self._fits(self._waiting[0][2]):
            sequence = heapq.heappop(self._waiting)[2]
            sequence.slot = self._free_slots.pop()
            slots = [sequence.slot]
            if sequence.num_slots == 2:
                sequence.guide_slot = self._free_slots.pop()
                slots.append(sequence.guide_slot)
            admitted.append((sequence, [self._blocks.allocate(slot, sequence.canvas_len) for slot in slots]))
        return admitted

    def release(self, sequence: Sequence) -> None:
        """Take back the slots and pages of a running request."""
        for slot in (sequence.slot, sequence.guide_slot):
            if slot >= 0:
                self._blocks.release(slot)
                self._free_slots.append(slot)
        sequence.slot = sequence.guide_slot = -1

    def _fits(self, sequence: Sequence) -> bool:
        return sequence.num_slots <= len(self._free_slots) and self._pages(sequence) <= self._blocks.num_free_pages

    def _pages(self, sequence: Sequence) -> int:
        return self._blocks.pages_for(sequence.canvas_len) * sequence.num_slots
