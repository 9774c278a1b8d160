"""Approximate caches of full-bidirectional models: refreshed when a block begins, reused inside it.

The refresh pass computes the whole canvas; its logits are that step's denoising step.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from engine.cache.policy import AttentionPattern, CachePolicy, IntArray, Progress, Spans
from engine.params import NoParams

_SOURCE = "Fast-dLLM (arXiv 2505.22618), section 3.2"


class _RefreshedPerBlock(CachePolicy):
    Params = NoParams
    exact: ClassVar[bool] = False
    patterns: ClassVar[frozenset[AttentionPattern]] = frozenset({"bidirectional"})

    def spans(self, progress: Progress) -> Spans:
        start = np.where(progress.refreshed, np.maximum(progress.block_start - self.lead, 0), 0)
        end = np.where(progress.refreshed, self.inner_end(progress), progress.canvas_len)
        return single_rows(progress, start, end)

    @abstractmethod
    def inner_end(self, progress: Progress) -> IntArray:
        """End of the span that is computed at the steps after the refresh."""


class PrefixCache(_RefreshedPerBlock):
    """Inside a block, reuse the K/V before it; compute the block and everything after it."""

    summary: ClassVar[str] = "Reuse K/V before the block; recompute block and suffix at each step."
    source: ClassVar[str] = _SOURCE

    def inner_end(self, progress: Progress) -> IntArray:
        return progress.canvas_len


class DualCache(_RefreshedPerBlock):
    """Inside a block, reuse the K/V before and after it; compute the block only."""

    summary: ClassVar[str] = "Reuse K/V before and after the block; recompute only the block at each step."
    source: ClassVar[str] = _SOURCE

    def inner_end(self, progress: Progress) -> IntArray:
        return progress.block_end


def single_rows(progress: Progress, q_start: IntArray, q_end: IntArray) -> Spans:
    """One row per sequence that attends over the whole canvas and decides the block."""
    index = np.arange(len(progress))
    return Spans(
        owner_R=index,
        q_start_R=q_start,
        q_end_R=q_end,
        kv_start_R=np.zeros_like(q_start),
        kv_end_R=progress.canvas_len,
        decode_row=index,
        cached_len=progress.cached_len,
    )
