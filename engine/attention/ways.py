"""The ways to attend rows over stored K/V, by the names of ``EngineConfig.attention_backend``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch

from engine.attention import varlen
from engine.attention.backend import AttentionBackend
from engine.attention.drift import DriftMeter
from engine.attention.flex import FlexAttention
from engine.attention.padded import PaddedAttention
from engine.attention.sdpa import SDPAAttention
from engine.attention.token_rows import TokenRows
from engine.attention.varlen import VarlenAttention
from engine.cache.kv_cache import KVCache
from engine.cache.page_table import PageTable
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.plan import Rows


class AttentionWay(ABC):
    """One per rank, around its K/V. ``summary`` is for operators."""

    summary: ClassVar[str]

    def __init__(self, cache: KVCache, table: PageTable) -> None:
        self._cache = cache
        self._table = table

    @classmethod
    def why_not(cls, device: torch.device, dtype: torch.dtype, head_dim: int, page_size: int) -> str | None:
        """What keeps it from being used here; None when nothing does."""
        return None

    @abstractmethod
    def bind(self, rows: Rows, drift: DriftMeter | None) -> AttentionBackend:
        """For one forward with these rows."""

    @abstractmethod
    def bind_tensors(self, rows: TokenRows) -> AttentionBackend:
        """For forwards whose rows the host does not look at; they begin at position 0 and have equally many queries."""


class SDPA(AttentionWay):
    summary: ClassVar[str] = "torch's scaled_dot_product_attention, a call per sequence; runs everywhere"

    def bind(self, rows: Rows, drift: DriftMeter | None) -> AttentionBackend:
        return SDPAAttention(self._cache, rows, self._table.host, drift)

    def bind_tensors(self, rows: TokenRows) -> AttentionBackend:
        return PaddedAttention(self._cache, rows, self._table)


class Varlen(AttentionWay):
    summary: ClassVar[str] = "FlashAttention over rows of any length, pages read in place; CUDA, 16 bits"

    def __init__(self, cache: KVCache, table: PageTable) -> None:
        super().__init__(cache, table)
        self._kernel = varlen.published_kernel()

    @classmethod
    def why_not(cls, device: torch.device, dtype: torch.dtype, head_dim: int, page_size: int) -> str | None:
        return varlen.why_not(device, dtype, head_dim, page_size)

    def bind(self, rows: Rows, drift: DriftMeter | None) -> AttentionBackend:
        return VarlenAttention(self._cache, TokenRows.of(rows, self._table), self._table, self._kernel, drift)

    def bind_tensors(self, rows: TokenRows) -> AttentionBackend:
        return VarlenAttention(self._cache, rows, self._table, self._kernel)


class Flex(AttentionWay):
    summary: ClassVar[str] = "flex_attention over packed rows, pages read in place; compiled at its first call on CUDA"

    def bind(self, rows: Rows, drift: DriftMeter | None) -> AttentionBackend:
        return FlexAttention(self._cache, TokenRows.of(rows, self._table), self._table, drift)

    def bind_tensors(self, rows: TokenRows) -> AttentionBackend:
        return FlexAttention(self._cache, rows, self._table)


ATTENTION_WAYS: Mapping[str, type[AttentionWay]] = MappingProxyType({"sdpa": SDPA, "varlen": Varlen, "flex": Flex})


def attention_way(
    config: EngineConfig, device: torch.device, dtype: torch.dtype, head_dim: int, page_size: int
) -> type[AttentionWay]:
    """The way that is asked for, ConfigError where it cannot be; ``auto`` is varlen where it can be, else sdpa."""
    if config.attention_backend == "auto":
        return Varlen if Varlen.why_not(device, dtype, head_dim, page_size) is None else SDPA
    way = ATTENTION_WAYS[config.attention_backend]
    if (reason := way.why_not(device, dtype, head_dim, page_size)) is not None:
        raise ConfigError(
            f"attention_backend {config.attention_backend!r} cannot be used: {reason}; use 'auto' or 'sdpa'",
            "attention_backend",
        )
    return way
