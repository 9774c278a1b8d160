"""Where the positions of each slot lie in K/V memory, as a rank knows it.

Shape legend: S slots, P pages of a slot, T tokens of a forward.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.cache.policy import IntArray
from engine.transfer import to_device


class PageTable:
    """Owns the physical page of every page of every slot: ``host`` ``[S, P]`` (-1: none) and ``pages``, the same on the
    device (0 where there is none, which nobody reads)."""

    def __init__(self, num_slots: int, max_len: int, page_size: int, device: torch.device) -> None:
        self.page_size = page_size
        self.host: IntArray = np.full((num_slots, -(-max_len // page_size)), -1, np.int64)
        self.pages = torch.zeros(self.host.shape, dtype=torch.int64, device=device)

    def assign(self, slot: int, pages: IntArray) -> None:
        """The slot has these pages from now on (-1 behind the last)."""
        self.host[slot, : len(pages)] = pages
        self.pages[slot, : len(pages)] = to_device(np.maximum(pages, 0), self.pages.device)

    @property
    def max_len(self) -> int:
        """Positions that a slot's pages can hold."""
        return int(self.host.shape[1]) * self.page_size

    def physical(self, slot_T: Tensor, position_T: Tensor) -> Tensor:
        """Physical positions, page * page_size + offset; the index tensors broadcast."""
        page_T = self.pages[slot_T, position_T // self.page_size]
        return page_T * self.page_size + position_T % self.page_size
