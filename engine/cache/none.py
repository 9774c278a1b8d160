"""No reuse: every step computes everything that the block depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from engine.cache.block import block_rows
from engine.cache.policy import AttentionPattern, CachePolicy, Progress, Spans, rows_over
from engine.params import NoParams


class NoCache(CachePolicy):
    """The whole canvas at each step; for block-causal models all blocks up to the current one."""

    Params = NoParams
    exact: ClassVar[bool] = False
    reuses: ClassVar[bool] = False
    patterns: ClassVar[frozenset[AttentionPattern]] = frozenset({"bidirectional", "block_causal"})
    summary: ClassVar[str] = "Recompute everything at each step: slow, exact, the yardstick for the others."
    source: ClassVar[str] = "LLaDA (arXiv 2502.09992), generate.py"

    def spans(self, progress: Progress) -> Spans:
        if self.pattern == "bidirectional":
            start = np.zeros_like(progress.canvas_len)
            return rows_over(progress, start, progress.canvas_len, start, progress.canvas_len)
        everything = replace(
            progress, cached_len=np.zeros_like(progress.cached_len), chunk_len=np.full_like(progress.chunk_len, 2**31)
        )
        return replace(block_rows(everything, fused=True), cached_len=progress.cached_len)
