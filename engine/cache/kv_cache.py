"""Device storage of K/V pages.

Shape legend: P page_size * num_pages physical positions, T tokens of a forward, K key/value heads, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Owns the keys (rotated) and values of one rank, ``[layers, P, K, D]`` each.

    A physical position is page * page_size + offset. Rows only see what was stored for the same slot; kernels that
    read whole pages weigh the rest with zero, so memory begins as zeros: a number that is none would stay one.
    """

    def __init__(
        self,
        num_layers: int,
        num_pages: int,
        page_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_layers, num_pages * page_size, num_kv_heads, head_dim)
        self.page_size = page_size
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy what is at offsets ``[start, end)`` of page ``source`` to the same offsets of page ``target``."""
        there, here = source * self.page_size, target * self.page_size
        for memory in (self.keys, self.values):
            memory[:, here + start : here + end] = memory[:, there + start : there + end]

    def store(self, layer: int, physical: Tensor | slice, keys_TKD: Tensor, values_TKD: Tensor) -> None:
        """Write fresh K/V of a forward at distinct physical positions; a slice is the faster way."""
        if isinstance(physical, slice):
            self.keys[layer, physical] = keys_TKD
            self.values[layer, physical] = values_TKD
            return
        self.keys[layer].index_copy_(0, physical, keys_TKD)
        self.values[layer].index_copy_(0, physical, values_TKD)
