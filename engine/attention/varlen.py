"""FlashAttention over rows of any length: one kernel per layer, K/V read from their pages in place.

Shape legend: T tokens of a forward, R rows, H query heads, K key/value heads, D head dimension, P physical positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.attention.drift import DriftMeter
from engine.attention.stored import StoredAttention
from engine.attention.token_rows import TokenRows
from engine.cache.kv_cache import KVCache
from engine.cache.page_table import PageTable

PAGE_MULTIPLE = 256
"""FlashAttention 2 takes pages of a multiple of so many positions."""

MAX_HEAD_DIM = 256
LEAST_CAPABILITY = (8, 0)


class VarlenAttention(StoredAttention):
    """``torch.nn.attention.varlen``. ``num_splits=1`` makes a row's bits independent of the other rows.

    A paged row's keys begin at position 0. Where some row's do not (sliding windows), the keys of all rows are gathered
    first. ``kernel`` is ``published_kernel()`` or has its signature.
    """

    def __init__(
        self,
        cache: KVCache,
        rows: TokenRows,
        table: PageTable,
        kernel: Callable[..., Any],
        drift: DriftMeter | None = None,
    ) -> None:
        super().__init__(cache, rows, drift)
        self._page_size = table.page_size
        self._kernel = kernel
        self._pages_RP = table.pages[rows.slot_R].int()
        self._used_R = rows.kv_end_R.int()

    def attend_stored(self, queries_THD: Tensor, keys_PKD: Tensor, values_PKD: Tensor) -> Tensor:
        rows = self._rows
        shape = rows.longest_query, rows.longest_keys
        grouped = queries_THD.shape[1] != keys_PKD.shape[1]
        mixed_THD: Tensor
        if rows.keys_X is not None:
            gathered = keys_PKD[rows.keys_X], values_PKD[rows.keys_X]
            bounds = rows.bounds_R1, rows.key_bounds_R1
            mixed_THD = self._kernel(queries_THD, *gathered, *bounds, *shape, enable_gqa=grouped, num_splits=1)
            return mixed_THD
        paged = (side_PKD.unflatten(0, (-1, self._page_size)) for side_PKD in (keys_PKD, values_PKD))
        mixed_THD = self._kernel(
            queries_THD,
            *paged,
            rows.bounds_R1,
            None,
            *shape,
            enable_gqa=grouped,
            seqused_k=self._used_R,
            block_table=self._pages_RP,
            num_splits=1,
        )
        return mixed_THD


def published_kernel() -> Callable[..., Any]:
    """``varlen_attn``, imported by who uses it: it brings torch's compiler along, two seconds of every other start."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def why_not(device: torch.device, dtype: torch.dtype, head_dim: int, page_size: int) -> str | None:
    """What keeps this kernel from being used; None when nothing does."""
    if device.type != "cuda":
        return f"it needs a CUDA device, not {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it needs bfloat16 or float16, not {str(dtype).removeprefix('torch.')}"
    if head_dim % 8 or head_dim > MAX_HEAD_DIM:
        return f"it needs heads of a multiple of 8 and at most {MAX_HEAD_DIM} dimensions, not {head_dim}"
    if page_size % PAGE_MULTIPLE:
        return f"it needs a page_size that is a multiple of {PAGE_MULTIPLE}, not {page_size}"
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return "it needs a device of compute capability 8.0 or later"
    return None
