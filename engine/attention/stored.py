"""What attention over stored K/V has in common, whatever kernel computes it.

Shape legend: T tokens of a forward, H query heads, K key/value heads, D head dimension, P physical positions.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from engine.attention.backend import AttentionBackend
from engine.attention.drift import DriftMeter
from engine.attention.token_rows import TokenRows
from engine.cache.kv_cache import KVCache


class StoredAttention(AttentionBackend):
    """Stores the K/V of a forward, then attends its rows. ``drift`` sees stored and fresh K/V before that."""

    def __init__(self, cache: KVCache, rows: TokenRows, drift: DriftMeter | None = None) -> None:
        self._cache = cache
        self._rows = rows
        self._drift = drift

    @property
    def row_T(self) -> Tensor:
        return self._rows.row_T

    def attend(self, layer: int, queries_THD: Tensor, keys_TKD: Tensor, values_TKD: Tensor) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        if self._drift is not None:
            token_M = self._drift.token_M
            physical_M = self._rows.physical_T[token_M]
            self._drift.observe((keys[physical_M], values[physical_M]), (keys_TKD[token_M], values_TKD[token_M]))
        self._cache.store(layer, self._rows.physical_T, keys_TKD, values_TKD)
        return self.attend_stored(queries_THD, keys, values)

    @abstractmethod
    def attend_stored(self, queries_THD: Tensor, keys_PKD: Tensor, values_PKD: Tensor) -> Tensor:
        """Every row's queries over the layer's stored keys of that row; ``[T, H, D]``."""
