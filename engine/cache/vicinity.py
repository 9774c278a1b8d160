"""Policies that compute the neighbourhood of a block."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Le
from pydantic import Field

from engine.cache.bidirectional import RefreshEvery, due
from engine.cache.policy import AttentionPattern, BoolArray, CachePolicy, IntArray, Progress, Spans, rows_over
from engine.params import params

MAX_LOOK = 65_536

PrefixLook = Annotated[int, Ge(0), Le(MAX_LOOK), Field(description="Positions before the block that are computed.")]
AfterLook = Annotated[int, Ge(0), Le(MAX_LOOK), Field(description="Positions behind the block that are computed.")]


class VicinityCache(CachePolicy):
    """Inside a block, compute the block and its neighbours; reuse all other K/V.

    The whole canvas is computed at the first ``warmup_steps`` steps of a request, whenever a block begins, and every
    ``refresh_every`` steps of a block.
    """

    exact: ClassVar[bool] = False
    takes_over: ClassVar[bool] = True
    patterns: ClassVar[frozenset[AttentionPattern]] = frozenset({"bidirectional"})
    summary: ClassVar[str] = "Recompute the block and its neighbours; reuse all other K/V, refreshed per block."
    source: ClassVar[str] = "dInfer (arXiv 2510.08666), vicinity KV-cache refresh"

    @params
    class Params:
        prefix_look: PrefixLook = 16
        after_look: AfterLook = 16
        warmup_steps: Annotated[int, Ge(0), Le(MAX_LOOK), Field(description="First steps without reuse.")] = 4
        refresh_every: RefreshEvery = 0

    def spans(self, progress: Progress) -> Spans:
        whole = (progress.total_steps > 0) & (progress.total_steps < progress.knobs["warmup_steps"])
        refresh = ~progress.refreshed | (due(progress) if self.fused else _refreshed_by_dinfer(progress))
        whole |= refresh
        start, end = neighbourhood(progress, self.lead)
        start, end = np.where(whole, 0, start), np.where(whole, progress.canvas_len, end)
        spans = rows_over(progress, start, end, np.zeros_like(start), progress.canvas_len)
        return replace(spans, refresh=refresh)


def _refreshed_by_dinfer(progress: Progress) -> BoolArray:
    """Where dInfer refreshes beside the beginnings of blocks. It keeps no K/V of its warm-up passes, so one pass
    follows them, and where that happens behind the first block another one after the next step. Behind the first block
    ``refresh_every`` counts all its passes; the one after a refresh never is one."""
    behind_warmup = progress.total_steps - progress.knobs["warmup_steps"].astype(np.int64)
    before_block = progress.total_steps - progress.step
    began_warm = (before_block > 0) & (before_block <= progress.knobs["warmup_steps"])
    every = progress.knobs["refresh_every"].astype(np.int64)
    counted = (every > 0) & (progress.total_steps % np.maximum(every, 1) == 0)
    counted &= ~progress.fresh & (before_block > 0) & (behind_warmup > 0)
    wanted: BoolArray = (behind_warmup == 0) | (began_warm & (behind_warmup == 2)) | counted
    return wanted


class WindowCache(CachePolicy):
    """Compute the block and its neighbours, and attend to nothing else. Nothing is reused: the cost of a step does
    not depend on the length of the canvas."""

    exact: ClassVar[bool] = False
    sees_canvas: ClassVar[bool] = False
    patterns: ClassVar[frozenset[AttentionPattern]] = frozenset({"bidirectional"})
    summary: ClassVar[str] = "See only a window around the block: constant cost per step, for local texts."
    source: ClassVar[str] = "Sliding-window attention around the block"

    @params
    class Params:
        prefix_look: PrefixLook = 256
        after_look: AfterLook = 32

    def spans(self, progress: Progress) -> Spans:
        start, end = neighbourhood(progress, self.lead)
        return rows_over(progress, start, end, start, end)


def neighbourhood(progress: Progress, lead: int) -> tuple[IntArray, IntArray]:
    """The block with ``prefix_look`` (at least ``lead``) positions before it and ``after_look`` behind it."""
    before = np.maximum(progress.knobs["prefix_look"].astype(np.int64), lead)
    start = np.maximum(progress.block_start - before, 0)
    end = np.minimum(progress.block_end + progress.knobs["after_look"].astype(np.int64), progress.canvas_len)
    return start, end
