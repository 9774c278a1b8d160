"""Which pages of K/V memory belong to which slot, and what of them is known from before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.cache.prefix_index import PrefixIndex


@dataclass(frozen=True, slots=True)
class KVCopy:
    """K/V at offsets ``[start, end)`` of page ``source`` are wanted at the same offsets of page ``target``."""

    source: int
    target: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a slot got: its row of the page table (-1 behind the end). K/V of ``[0, cached_len)`` are there once
    ``copies`` are made, in order and before the next forward."""

    pages: npt.NDArray[np.int64]
    cached_len: int = 0
    copies: tuple[KVCopy, ...] = ()


class BlockManager:
    """Owns the page table ``[S, pages per slot]``, how many slots use each page, and which committed blocks lie where.
    Host only; ("block" in its own name is the field's older name for a page, not a diffusion block).

    A canvas has a known length, so a request gets all its pages when it is admitted and never waits for more. Pages
    that are full of known blocks are shared: nobody writes to a committed block. Of one that is known in part a copy is
    made. Free pages keep what is in them until they are needed, those that were used longest ago first. Into such go
    copies of whole canvases (:meth:`keep`), whose own pages are written at every step.
    """

    def __init__(self, num_slots: int, num_pages: int, page_size: int, max_len: int) -> None:
        assert min(num_slots, num_pages, page_size, max_len) >= 1
        self.page_size = page_size
        self.num_pages = num_pages
        self.page_table = np.full((num_slots, -(-max_len // page_size)), -1, dtype=np.int64)
        self._free = OrderedDict.fromkeys(range(num_pages))
        self._num_users = [0] * num_pages
        self._index = PrefixIndex()

    @property
    def num_free_pages(self) -> int:
        return len(self._free)

    def pages_for(self, num_positions: int) -> int:
        """Pages that hold ``num_positions``."""
        return -(-num_positions // self.page_size)

    def allocate(self, slot: int, num_positions: int, keys: Sequence[bytes] = (), block_length: int = 1) -> Allocation:
        """Give ``slot`` pages for ``[0, num_positions)``, whose first blocks have ``keys``."""
        count = self.pages_for(num_positions)
        assert count <= len(self._free), "compare pages_for with num_free_pages first"
        assert (self.page_table[slot] == -1).all(), f"slot {slot} still owns pages"
        known = self._known(keys, block_length)
        shared = self._whole_pages(known, block_length)
        for page in shared:
            self._num_users[page] += 1
            self._free.pop(page, None)
        begun = known[len(shared) * self.page_size // block_length :]
        own = self._take(count - len(shared), begun, keys[len(known) - len(begun) : len(known)])
        if own is None:
            own, known = self._take(count - len(shared), [], ()), known[: len(known) - len(begun)]
        assert own is not None
        self.page_table[slot, :count] = [*shared, *own]
        copies = self._copies(slot, known, len(shared) * self.page_size // block_length, block_length)
        return Allocation(self.page_table[slot].copy(), len(known) * block_length, copies)

    def catch_up(self, slot: int, keys: Sequence[bytes], block_length: int, num_known: int) -> Allocation:
        """Copies of blocks behind the first ``num_known`` that have become known since ``slot`` got its pages."""
        known = self._known(keys, block_length)
        copies = self._copies(slot, known, num_known, block_length)
        return Allocation(self.page_table[slot].copy(), max(len(known), num_known) * block_length, copies)

    def register(self, slot: int, keys: Sequence[bytes], block_length: int) -> None:
        """The first blocks of ``slot`` are committed and have ``keys``."""
        if not self._shares(block_length):
            return
        for number, key in enumerate(keys):
            self._index.add(key, int(self.page_table[slot, number * block_length // self.page_size]))

    def copy_slot(self, source: int, target: int, num_positions: int) -> tuple[KVCopy, ...]:
        """Copies of the first K/V of slot ``source`` for slot ``target``."""
        return self._page_copies(self.page_table[source].tolist(), self.page_table[target].tolist(), num_positions)

    def keep(self, slot: int, keys: Sequence[bytes], num_positions: int) -> tuple[KVCopy, ...]:
        """Copies of the first K/V of ``slot`` into free pages, which have ``keys`` as long as nobody needs them; none
        where too few are free, or such are kept already."""
        if len(keys) > len(self._free) or len(self._index.pages(keys)) == len(keys):
            return ()
        pages = [self._free.popitem(last=False)[0] for _ in keys]
        for key, page in zip(keys, pages, strict=True):
            self._index.forget(page)
            self._index.add(key, page)
            self._free[page] = None
        return self._page_copies(self.page_table[slot].tolist(), pages, num_positions)

    def recall(self, slot: int, keys: Sequence[bytes], num_positions: int) -> tuple[KVCopy, ...]:
        """Copies of the kept pages that have ``keys`` into those of ``slot``; none unless all of them are there."""
        pages = self._index.pages(keys)
        if len(pages) < len(keys):
            return ()
        for page in pages:
            self._free.move_to_end(page)
        return self._page_copies(pages, self.page_table[slot].tolist(), num_positions)

    def release(self, slot: int) -> None:
        """Take back the pages of ``slot``; those that nobody else uses are free."""
        pages = self.page_table[slot]
        for page in pages[pages >= 0][::-1].tolist():
            self._num_users[page] -= 1
            if not self._num_users[page]:
                self._free[page] = None
                self._free.move_to_end(page, last=self._index.holds(page))
        self.page_table[slot] = -1

    def check(self) -> None:
        """Assert that every page is either free or used by as many slots as is counted."""
        owned = self.page_table[self.page_table >= 0]
        users = np.bincount(owned, minlength=self.num_pages).tolist()
        assert users == self._num_users, "a page is lost or owned twice"
        free = sorted(page for page in range(self.num_pages) if not users[page])
        assert free == sorted(self._free), "a page is lost or owned twice"
        self._index.check()

    def _shares(self, block_length: int) -> bool:
        """Whether blocks of that length never lie across pages."""
        return self.page_size % block_length == 0 or self.page_table.shape[1] == 1

    def _known(self, keys: Sequence[bytes], block_length: int) -> list[int]:
        return self._index.pages(keys) if self._shares(block_length) else []

    def _whole_pages(self, known: list[int], block_length: int) -> list[int]:
        """The leading pages all of whose blocks are known, in one page each."""
        per_page, pages = self.page_size // block_length, []
        for first in range(0, len(known) - per_page + 1, per_page) if self.page_size % block_length == 0 else ():
            if len(set(known[first : first + per_page])) > 1:
                break
            pages.append(known[first])
        return pages

    def _take(self, count: int, begun: list[int], keys: Sequence[bytes]) -> list[int] | None:
        """The ``count`` free pages that were used longest ago, none of those in ``begun``, which are to be read. Where
        only these are left, one page may be taken over with the blocks in ``keys``; else None."""
        readable = OrderedDict((page, self._free.pop(page)) for page in set(begun) if page in self._free)
        if count > len(self._free):
            self._free.update(readable)
            if count > 1 or len(set(begun)) > 1:
                return None
            page = begun[0]
            del self._free[page]
            self._index.forget(page, but=keys)
            self._num_users[page] = 1
            return [page]
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        self._free.update(readable)
        for page in taken:
            self._index.forget(page)
            self._num_users[page] = 1
        return taken

    def _page_copies(self, sources: Sequence[int], targets: Sequence[int], num_positions: int) -> tuple[KVCopy, ...]:
        """Copies of the first positions, page by page."""
        lengths = [min(num_positions - start, self.page_size) for start in range(0, num_positions, self.page_size)]
        return tuple(
            KVCopy(source, target, 0, length) for source, target, length in zip(sources, targets, lengths, strict=False)
        )

    def _copies(self, slot: int, known: list[int], first: int, block_length: int) -> tuple[KVCopy, ...]:
        """Copies of the known blocks from number ``first`` on into the slot's own pages, neighbours in one."""
        copies: list[KVCopy] = []
        for number in range(first, len(known)):
            place, start = divmod(number * block_length, self.page_size)
            source, target, end = known[number], int(self.page_table[slot, place]), start + block_length
            if source == target:
                continue
            last = copies[-1] if copies else None
            if last is not None and (last.source, last.target, last.end) == (source, target, start):
                copies[-1] = KVCopy(source, target, last.start, end)
            else:
                copies.append(KVCopy(source, target, start, end))
        return tuple(copies)
