"""flex_attention over packed rows: pages are its key blocks, so K/V are read in place and pages of other slots skipped.

Shape legend: T tokens of a forward, B query blocks of them, H query heads, K key/value heads, D head dimension,
P physical positions, G pages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as once
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from engine.attention.drift import DriftMeter
from engine.attention.stored import StoredAttention
from engine.attention.token_rows import TokenRows
from engine.cache.kv_cache import KVCache
from engine.cache.page_table import PageTable

QUERY_BLOCK = 128


class FlexAttention(StoredAttention):
    """A key is seen where it lies in the row's slot and within its key span; whether a page can hold such a key is
    decided per block of queries. Memory that nobody wrote must be finite: masked keys of a partly filled page are
    multiplied by zero. ``kernel`` has the signature of ``flex_attention``."""

    def __init__(
        self,
        cache: KVCache,
        rows: TokenRows,
        table: PageTable,
        drift: DriftMeter | None = None,
        kernel: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(cache, rows, drift)
        self._kernel = kernel or kernel_for(cache.keys.device.type)
        self._mask = page_mask(rows, table, cache.keys.shape[1])

    def attend_stored(self, queries_THD: Tensor, keys_PKD: Tensor, values_PKD: Tensor) -> Tensor:
        queries, keys, values = (x.transpose(0, 1)[None] for x in (queries_THD, keys_PKD, values_PKD))
        grouped = queries_THD.shape[1] != keys_PKD.shape[1]
        output = self._kernel(queries, keys, values, block_mask=self._mask, enable_gqa=grouped)
        mixed_THD: Tensor = output[0].transpose(0, 1)
        return mixed_THD


def page_mask(rows: TokenRows, table: PageTable, num_physical: int) -> BlockMask:
    """Which keys each query sees, and which pages each block of queries has to look at."""
    size, device = table.page_size, rows.slot_R.device
    num_pages = num_physical // size
    position_P = _positions(rows, table, num_pages)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = rows.row_T[query.clamp(max=len(rows.row_T) - 1)]
        position = position_P[row, key // size] * size + key % size
        return (position >= rows.kv_start_R[row]) & (position < rows.kv_end_R[row])

    page_first_RG = position_P * size
    looks_RG = (page_first_RG < rows.kv_end_R[:, None]) & (page_first_RG + size > rows.kv_start_R[:, None])
    looks_RG &= position_P >= 0
    num_blocks = -(-len(rows.row_T) // QUERY_BLOCK)
    padded_T = rows.row_T[torch.arange(num_blocks * QUERY_BLOCK, device=device).clamp(max=len(rows.row_T) - 1)]
    looks_BG = looks_RG[padded_T].unflatten(0, (num_blocks, QUERY_BLOCK)).any(dim=1)
    order_BG = looks_BG.int().argsort(dim=1, descending=True, stable=True)
    return BlockMask.from_kv_blocks(
        looks_BG.sum(dim=1, dtype=torch.int32)[None, None],
        order_BG.int()[None, None],
        BLOCK_SIZE=(QUERY_BLOCK, size),
        mask_mod=sees,
        seq_lengths=(len(rows.row_T), num_pages * size),
    )


def _positions(rows: TokenRows, table: PageTable, num_pages: int) -> Tensor:
    """Which of its slot's pages each physical page is for each row, ``[R, G]``; far below zero for others' pages."""
    pages_RP = table.pages[rows.slot_R]
    number_P = torch.arange(pages_RP.shape[1], device=pages_RP.device)
    used_RP = number_P * table.page_size < rows.kv_end_R[:, None]
    spare = num_pages  # a column that takes what the row does not use
    number_RG = torch.full((len(pages_RP), num_pages + 1), -(2**30), device=pages_RP.device)
    number_RG.scatter_(1, pages_RP.where(used_RP, spare), number_P.expand_as(pages_RP))
    return number_RG[:, :num_pages]


@once
def kernel_for(device_type: str) -> Callable[..., Any]:
    """The kernel, compiled where there is a GPU (its first call takes seconds); elsewhere it is computed plainly."""
    plain: Callable[..., Any] = flex_attention
    return torch.compile(plain) if device_type == "cuda" else plain
