"""Attention from tensors alone with torch's scaled_dot_product_attention: keys of every row gathered at full length and
masked. Copies more than any other way; it is there where shapes must not depend on lengths and no kernel reads pages.

Shape legend: T tokens of a forward, R rows, X positions of a slot, H query heads, K key/value heads, D head dimension,
P physical positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.attention.stored import StoredAttention
from engine.attention.token_rows import TokenRows
from engine.cache.kv_cache import KVCache
from engine.cache.page_table import PageTable


class PaddedAttention(StoredAttention):
    """Rows have equally many queries. Memory that nobody wrote must be finite: it is read, and weighs nothing."""

    def __init__(self, cache: KVCache, rows: TokenRows, table: PageTable) -> None:
        super().__init__(cache, rows)
        position_X = torch.arange(table.max_len, device=rows.slot_R.device)
        self._physical_RX = table.physical(rows.slot_R[:, None], position_X)
        seen_RX = (position_X >= rows.kv_start_R[:, None]) & (position_X < rows.kv_end_R[:, None])
        self._seen_R11X = seen_RX[:, None, None]

    def attend_stored(self, queries_THD: Tensor, keys_PKD: Tensor, values_PKD: Tensor) -> Tensor:
        num_rows = len(self._rows.slot_R)
        queries = queries_THD.unflatten(0, (num_rows, -1)).transpose(1, 2)
        keys, values = (side_PKD[self._physical_RX].transpose(1, 2) for side_PKD in (keys_PKD, values_PKD))
        grouped = queries.shape[1] != keys.shape[1]
        output = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=self._seen_R11X, enable_gqa=grouped
        )
        mixed_THD: Tensor = output.transpose(1, 2).flatten(0, 1)
        return mixed_THD
