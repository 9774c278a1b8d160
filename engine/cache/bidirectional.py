"""Approximate caches of full-bidirectional models: refreshed when a block begins, reused inside it.

The refresh pass computes the whole canvas; its logits are that step's denoising step.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from engine.cache.policy import AttentionPattern, CachePolicy, IntArray, Progress, Spans, rows_over
from engine.params import NoParams

_SOURCE = "Fast-dLLM (arXiv 2505.22618), section 3.2"


class _RefreshedPerBlock(CachePolicy):
    Params = NoParams
    exact: ClassVar[bool] = False
    patterns: ClassVar[frozenset[AttentionPattern]] = frozenset({"bidirectional"})

    def spans(self, progress: Progress) -> Spans:
        start = np.where(progress.refreshed, np.maximum(progress.block_start - self.lead, 0), 0)
        end = np.where(progress.refreshed, self.inner_end(progress), progress.canvas_len)
        return rows_over(progress, start, end, np.zeros_like(start), progress.canvas_len)

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
