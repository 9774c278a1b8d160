"""The exact cache of block-causal models."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.cache.policy import AttentionPattern, CachePolicy, IntArray, Progress, Spans
from engine.params import NoParams


class BlockCache(CachePolicy):
    """Finished blocks are computed once more with their final tokens (commit) and never again.

    A commit, and the blocks of a prompt, ride in the forward of the next denoising step, so forwards equal denoising
    steps; the last block is never committed. Prompts longer than ``chunk_len`` take forwards of their own.
    """

    Params = NoParams
    exact: ClassVar[bool] = True
    in_parts: ClassVar[bool] = True
    patterns: ClassVar[frozenset[AttentionPattern]] = frozenset({"block_causal"})
    summary: ClassVar[str] = "Keep the K/V of finished blocks: exact for block-causal models."
    source: ClassVar[str] = "Block diffusion (arXiv 2503.09573); SDAR (arXiv 2510.06303)"

    def spans(self, progress: Progress) -> Spans:
        return block_rows(progress, fused=self.fused)


def block_rows(progress: Progress, *, fused: bool) -> Spans:
    """Rows of the blocks in ``[cached_len, block_start)``, then of the current block.

    Each finished block i attends over ``[0, (i+1) * block_length)``, the current one over ``[0, block_end)``.
    """
    length = progress.block_length
    pending = (progress.block_start - progress.cached_len) // length
    affordable = np.maximum(progress.chunk_len // length, 1)
    decodes = (progress.block_end > progress.block_start) & (pending + 1 <= affordable if fused else pending == 0)
    finished: IntArray = np.where(decodes, pending, np.minimum(pending, affordable))
    rows_per_sequence = finished + decodes
    owner_R = np.repeat(np.arange(len(progress)), rows_per_sequence)
    first_row = np.cumsum(rows_per_sequence) - rows_per_sequence
    nth_R = np.arange(len(owner_R)) - first_row[owner_R]
    q_start_R = progress.cached_len[owner_R] + nth_R * length[owner_R]
    current_R = nth_R == finished[owner_R]
    q_end_R = np.where(current_R, progress.block_end[owner_R], q_start_R + length[owner_R])
    return Spans(
        owner_R=owner_R,
        q_start_R=q_start_R,
        q_end_R=q_end_R,
        kv_start_R=np.zeros_like(q_start_R),
        kv_end_R=q_end_R,
        decode_row=np.where(decodes, first_row + finished, -1),
        cached_len=progress.cached_len + finished * length,
    )
