"""Which pages of K/V memory belong to which slot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class BlockManager:
    """Owns the page table ``[S, pages per slot]`` and the free list. Host only; ("block" is the field's older name
    for a page, not a diffusion block).

    A canvas has a known length, so a request gets all its pages when it is admitted and never waits for more.
    """

    def __init__(self, num_slots: int, num_pages: int, page_size: int, max_len: int) -> None:
        assert min(num_slots, num_pages, page_size, max_len) >= 1
        self.page_size = page_size
        self.num_pages = num_pages
        self.page_table = np.full((num_slots, -(-max_len // page_size)), -1, dtype=np.int64)
        self._free = list(range(num_pages - 1, -1, -1))

    @property
    def num_free_pages(self) -> int:
        return len(self._free)

    def pages_for(self, num_positions: int) -> int:
        """Pages that hold ``num_positions``."""
        return -(-num_positions // self.page_size)

    def allocate(self, slot: int, num_positions: int) -> npt.NDArray[np.int64]:
        """Give ``slot`` pages for ``[0, num_positions)`` and return its row of the page table (-1 behind the end)."""
        count = self.pages_for(num_positions)
        assert count <= len(self._free), "compare pages_for with num_free_pages first"
        assert (self.page_table[slot] == -1).all(), f"slot {slot} still owns pages"
        self.page_table[slot, :count] = [self._free.pop() for _ in range(count)]
        pages: npt.NDArray[np.int64] = self.page_table[slot].copy()
        return pages

    def release(self, slot: int) -> None:
        """Return the pages of ``slot`` to the free list."""
        pages = self.page_table[slot]
        self._free.extend(int(page) for page in pages[pages >= 0][::-1])
        self.page_table[slot] = -1

    def check(self) -> None:
        """Assert that every page is either free or owned by exactly one slot."""
        owned = self.page_table[self.page_table >= 0].tolist()
        assert sorted(owned + self._free) == list(range(self.num_pages)), "a page is lost or owned twice"
