"""Approximate caches of full-bidirectional models: refreshed when a block begins, reused inside it.

The refresh pass computes the whole canvas; its logits are that step's denoising step. ``refresh_every`` asks for more
refreshes inside a block.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Le
from pydantic import Field

from engine.cache.policy import AttentionPattern, BoolArray, CachePolicy, IntArray, Progress, Spans, rows_over
from engine.params import params

_SOURCE = "Fast-dLLM (arXiv 2505.22618), section 3.2"

MAX_REFRESH_EVERY = 65_536

RefreshEvery = Annotated[
    int,
    Ge(0),
    Le(MAX_REFRESH_EVERY),
    Field(description="Steps of a block between refreshes; 0: only when it begins."),
]


@params
class RefreshParams:
    """How long K/V are reused."""

    refresh_every: RefreshEvery = 0


class _RefreshedPerBlock(CachePolicy):
    Params = RefreshParams
    exact: ClassVar[bool] = False
    takes_over: ClassVar[bool] = True
    patterns: ClassVar[frozenset[AttentionPattern]] = frozenset({"bidirectional"})

    def spans(self, progress: Progress) -> Spans:
        refresh = ~progress.refreshed | (due(progress) if self.fused else _due_in_dinfer(progress))
        start = np.where(refresh, 0, np.maximum(progress.block_start - self.lead, 0))
        end = np.where(refresh, progress.canvas_len, self.inner_end(progress))
        spans = rows_over(progress, start, end, np.zeros_like(start), progress.canvas_len)
        return replace(spans, refresh=refresh)

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


def due(progress: Progress) -> BoolArray:
    """Whether ``refresh_every`` asks for a refresh at this step of the block; its first step is no matter of it."""
    every = progress.knobs["refresh_every"].astype(np.int64)
    wanted: BoolArray = (every > 0) & (progress.step > 0) & (progress.step % np.maximum(every, 1) == 0)
    return wanted


def _due_in_dinfer(progress: Progress) -> BoolArray:
    """dInfer counts iterations of the request (``cache_update_freq``); one that refreshes has two forwards."""
    every = progress.knobs["refresh_every"].astype(np.int64)
    iteration = progress.total_steps - progress.refreshes
    wanted: BoolArray = (every > 0) & ~progress.fresh & (iteration % np.maximum(every, 1) == 0)
    return wanted
