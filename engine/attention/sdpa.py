"""Attention over paged K/V with torch's scaled_dot_product_attention, one call per sequence and layer.

The backend for CPUs, and the portable one elsewhere. Sequences of different lengths never share a padded call. Where a
slot's pages are adjacent (always, when a page holds a whole slot), keys and values are read in place; otherwise they
are gathered.

Shape legend: T tokens of a forward, H query heads, K key/value heads, G query heads per key head, D head dimension,
Q queries and X keys of one segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.attention.backend import AttentionBackend
from engine.attention.drift import DriftMeter
from engine.cache.kv_cache import KVCache
from engine.cache.policy import IntArray
from engine.plan import Rows
from engine.transfer import to_device


@dataclass(frozen=True, slots=True)
class Segment:
    """Adjacent rows of one slot as a single attention call: tokens ``[first, end)`` of the forward against the keys
    at ``keys``; ``mask`` ``[Q, X]`` says which keys a query may see (None: all)."""

    first: int
    end: int
    keys: slice | Tensor
    mask: Tensor | None


class SDPAAttention(AttentionBackend):
    """Bound to the rows of one forward. ``drift`` sees stored and fresh K/V of its tokens before they are stored."""

    def __init__(self, cache: KVCache, rows: Rows, page_table: IntArray, drift: DriftMeter | None = None) -> None:
        device = cache.keys.device
        slot_T, position_T = rows.tokens()
        self._cache = cache
        self._drift = drift
        self._rows = rows
        physical_T = _physical(page_table, slot_T, position_T, cache.page_size)
        self._physical_T = to_device(physical_T, device)
        self._stored = _adjacent(physical_T) or self._physical_T
        offset_R = rows.offset_R
        self._segments = [_segment(rows, offset_R, run, page_table, cache.page_size, device) for run in _runs(rows)]

    @cached_property
    def row_T(self) -> Tensor:
        lengths = self._rows.q_end_R - self._rows.q_start_R
        return to_device(np.repeat(np.arange(len(lengths)), lengths), self._physical_T.device)

    def attend(self, layer: int, queries_THD: Tensor, keys_TKD: Tensor, values_TKD: Tensor) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        if self._drift is not None:
            token_M = self._drift.token_M
            physical_M = self._physical_T[token_M]
            self._drift.observe((keys[physical_M], values[physical_M]), (keys_TKD[token_M], values_TKD[token_M]))
        self._cache.store(layer, self._stored, keys_TKD, values_TKD)
        queries_1HTD = queries_THD.transpose(0, 1)[None]
        mixed = [
            _attend(
                queries_1HTD[:, :, segment.first : segment.end],
                keys[segment.keys].transpose(0, 1)[None],
                values[segment.keys].transpose(0, 1)[None],
                segment.mask,
            )[0].transpose(0, 1)
            for segment in self._segments
        ]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _attend(queries_1HQD: Tensor, keys_1KXD: Tensor, values_1KXD: Tensor, mask_QX: Tensor | None) -> Tensor:
    """Grouped-query attention without repeating keys: the G query heads of a key head become G * Q queries. With one
    query head per key head nothing is copied."""
    _, num_heads, num_queries, head_dim = queries_1HQD.shape
    num_kv_heads = keys_1KXD.shape[1]
    if num_heads == num_kv_heads:
        return functional.scaled_dot_product_attention(queries_1HQD, keys_1KXD, values_1KXD, attn_mask=mask_QX)
    group = num_heads // num_kv_heads
    folded = queries_1HQD.reshape(1, num_kv_heads, group * num_queries, head_dim)
    mask = mask_QX.repeat(group, 1) if mask_QX is not None else None
    output = functional.scaled_dot_product_attention(folded, keys_1KXD, values_1KXD, attn_mask=mask)
    return output.reshape(1, num_heads, num_queries, head_dim)


def _physical(page_table: IntArray, slot: IntArray, position: IntArray, page_size: int) -> IntArray:
    physical: IntArray = page_table[slot, position // page_size] * page_size + position % page_size
    return physical


def _adjacent(physical_T: IntArray) -> slice | None:
    """The positions as a slice when each follows the one before."""
    if not len(physical_T) or (np.diff(physical_T) != 1).any():
        return None
    return slice(int(physical_T[0]), int(physical_T[-1]) + 1)


def _runs(rows: Rows) -> list[tuple[int, int]]:
    """Row ranges that can share a call: one slot, query spans that continue each other, the same first key."""
    if not len(rows.slot_R):
        return []
    breaks = (
        (rows.slot_R[1:] != rows.slot_R[:-1])
        | (rows.q_start_R[1:] != rows.q_end_R[:-1])
        | (rows.kv_start_R[1:] != rows.kv_start_R[:-1])
    )
    starts = [0, *(np.flatnonzero(breaks) + 1).tolist()]
    return list(zip(starts, [*starts[1:], len(rows.slot_R)], strict=True))


def _keys(pages: IntArray, kv_start: int, kv_end: int, page_size: int, device: torch.device) -> slice | Tensor:
    """Where the keys of one slot lie: a slice when its pages are adjacent, else the physical positions."""
    first, last = kv_start // page_size, (kv_end - 1) // page_size
    base = int(pages[first]) * page_size
    if first == last or (np.diff(pages[first : last + 1]) == 1).all():
        return slice(base + kv_start % page_size, base + kv_end - first * page_size)
    position_X = np.arange(kv_start, kv_end)
    return to_device(pages[position_X // page_size] * page_size + position_X % page_size, device)


def _segment(
    rows: Rows, offset_R: IntArray, run: tuple[int, int], page_table: IntArray, page_size: int, device: torch.device
) -> Segment:
    first, last = run[0], run[1] - 1
    kv_end_R = rows.kv_end_R[first : last + 1]
    kv_start, kv_end = int(rows.kv_start_R[first]), int(kv_end_R.max())
    mask = None
    if (kv_end_R != kv_end).any():
        seen_Q = np.repeat(kv_end_R, rows.q_end_R[first : last + 1] - rows.q_start_R[first : last + 1])
        mask = to_device(np.arange(kv_start, kv_end)[None, :] < seen_Q[:, None], device)
    end = int(offset_R[last] + rows.q_end_R[last] - rows.q_start_R[last])
    keys = _keys(page_table[rows.slot_R[first]], kv_start, kv_end, page_size, device)
    return Segment(int(offset_R[first]), end, keys, mask)
