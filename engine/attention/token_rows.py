"""Rows of a forward as tensors, for attention that never asks the host for a length.

Shape legend: T tokens of a forward, R rows, Q queries of a row where all rows have as many, X keys of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.cache.page_table import PageTable
from engine.plan import Rows
from engine.transfer import pack_to_device


@dataclass(frozen=True, slots=True)
class TokenRows:
    """``bounds_R1`` (int32) are where each row's tokens begin, and T. ``physical_T`` is where each token's K/V belong,
    ``row_T`` the row of each token. No row has more than ``longest_query`` tokens or ``longest_keys`` keys. Where some
    row's keys do not begin at position 0, ``keys_X`` are the physical positions of all rows' keys laid end to end and
    ``key_bounds_R1`` (int32) their bounds; None where all do."""

    slot_R: Tensor
    kv_start_R: Tensor
    kv_end_R: Tensor
    bounds_R1: Tensor
    physical_T: Tensor
    row_T: Tensor
    longest_query: int
    longest_keys: int
    keys_X: Tensor | None = None
    key_bounds_R1: Tensor | None = None

    @classmethod
    def of(cls, rows: Rows, table: PageTable) -> TokenRows:
        """The rows of a plan, in one copy to the device."""
        device = table.pages.device
        slot_T, position_T = rows.tokens()
        lengths_R, keys_R = rows.q_end_R - rows.q_start_R, rows.kv_end_R - rows.kv_start_R
        row_T = np.repeat(np.arange(len(lengths_R)), lengths_R)
        bounds_R1 = np.concatenate((rows.offset_R, [len(row_T)]))
        arrays = [rows.slot_R, rows.kv_start_R, rows.kv_end_R, bounds_R1, row_T, slot_T, position_T]
        if rows.kv_start_R.any():
            key_ends_R = np.cumsum(keys_R)
            shift_X = np.repeat(rows.kv_start_R - (key_ends_R - keys_R), keys_R)
            arrays += [np.concatenate(([0], key_ends_R)), np.repeat(rows.slot_R, keys_R)]
            arrays += [np.arange(len(shift_X)) + shift_X]
        slot_R, kv_start_R, kv_end_R, bounds, row, slot, position, *keys = pack_to_device(arrays, device)
        return cls(
            slot_R=slot_R,
            kv_start_R=kv_start_R,
            kv_end_R=kv_end_R,
            bounds_R1=bounds.int(),
            physical_T=table.physical(slot, position),
            row_T=row,
            longest_query=int(lengths_R.max()),
            longest_keys=int(keys_R.max()),
            keys_X=table.physical(keys[1], keys[2]) if keys else None,
            key_bounds_R1=keys[0].int() if keys else None,
        )

    @classmethod
    def uniform(
        cls, slot_R: Tensor, q_start_R: Tensor, kv_end_R: Tensor, query_len: int, table: PageTable
    ) -> TokenRows:
        """Rows of ``query_len`` tokens each that see their slot from position 0 on, from tensors alone: shapes depend
        on R and ``query_len`` only."""
        row_R, offset_Q = (torch.arange(count, device=slot_R.device) for count in (len(slot_R), query_len))
        return cls(
            slot_R=slot_R,
            kv_start_R=torch.zeros_like(kv_end_R),
            kv_end_R=kv_end_R,
            bounds_R1=torch.arange(len(slot_R) + 1, device=slot_R.device, dtype=torch.int32) * query_len,
            physical_T=table.physical(slot_R[:, None], q_start_R[:, None] + offset_Q).flatten(),
            row_T=row_R[:, None].expand(-1, query_len).flatten(),
            longest_query=query_len,
            longest_keys=table.max_len,
        )
