"""The interface of a cache policy: which positions are computed at a step and which K/V are reused.

Pure arithmetic on host arrays, one entry per sequence (legend: n sequences, R rows). A row feeds the canvas tokens of
``[q_start, q_end)`` of one sequence, stores their K/V, and attends without a mask over ``[kv_start, kv_end)``; all
rows of a forward store before any attends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

AttentionPattern = Literal["bidirectional", "block_causal"]
"""Which keys a query may see: all of the canvas, or those of its own and earlier blocks."""

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where each sequence stands; every array has one entry per sequence.

    ``canvas_len`` is prompt plus generation, ``[block_start, block_end)`` the block being decoded (empty when all
    blocks are decoded and only a commit is due), ``cached_len`` the length of the prefix whose K/V are final (exact
    policies), ``step`` the denoising step within the block (0 first), ``total_steps`` those of the whole
    request, ``refreshed`` whether a forward has been run since the block began (at step 0: whether all K/V are those of
    the canvas as it stands, because they were taken over), ``refreshes`` how many forwards of the request computed
    reused K/V anew and ``fresh`` whether the last one did, ``stale_steps`` the forwards since the whole canvas was
    computed (-1: not yet as it is laid out now), ``drift`` how far K/V have moved since then (policies that measure),
    ``decided_start`` the beginning of the block that the last step wrote to: K/V from there on are older than their
    tokens. ``chunk_len`` is the most positions to compute in this forward. ``knobs`` are the policy's parameters.
    """

    canvas_len: IntArray
    block_start: IntArray
    block_end: IntArray
    block_length: IntArray
    cached_len: IntArray
    step: IntArray
    total_steps: IntArray
    refreshed: BoolArray
    refreshes: IntArray
    fresh: BoolArray
    stale_steps: IntArray
    drift: FloatArray
    decided_start: IntArray
    chunk_len: IntArray
    knobs: Mapping[str, npt.NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.canvas_len)


@dataclass(frozen=True, slots=True)
class Spans:
    """What a forward computes for those sequences.

    ``owner_R`` is the sequence of each row (ascending); rows of one sequence are ordered by ``q_start``.
    ``decode_row`` is the row whose logits decide the block, -1 where this forward decides nothing (then it only
    computes K/V). ``cached_len`` is the new length of the final prefix. ``refresh`` marks sequences whose reused K/V
    are computed anew (None: the policy does not tell).
    """

    owner_R: IntArray
    q_start_R: IntArray
    q_end_R: IntArray
    kv_start_R: IntArray
    kv_end_R: IntArray
    decode_row: IntArray
    cached_len: IntArray
    refresh: BoolArray | None = None


class CachePolicy(ABC):
    """One class and one line in ``CACHE_POLICIES``. Stateless; made once per engine.

    ``exact`` means that K/V of decoded tokens never change, so that pages may be kept and shared. ``patterns`` are
    the attention patterns of the models it suits. ``fused`` lets one forward carry prefill or commit rows and a
    denoising step; without it they take forwards of their own, as in the published engines. ``reuses`` tells policies
    that compute less than the whole canvas inside a block. ``lead`` positions before the block are computed with it:
    the logits of a model that shifts by one decide the block's first position there. ``sees_canvas`` tells policies
    that compute the whole canvas at least when a block begins (bidirectional models): the first pass of each leaves K/V
    that depend on the canvas alone. ``takes_over`` tells those that can begin with such K/V of another request: asked
    at step 0 with ``refreshed`` they plan a step as inside a block, and then what they would have planned after a pass
    of their own. ``measures`` tells those that want to know how far K/V have moved, ``in_parts`` those that can compute
    a prompt over several forwards, each within ``chunk_len``.
    """

    Params: ClassVar[type]
    exact: ClassVar[bool]
    reuses: ClassVar[bool] = True
    sees_canvas: ClassVar[bool] = True
    takes_over: ClassVar[bool] = False
    measures: ClassVar[bool] = False
    in_parts: ClassVar[bool] = False
    patterns: ClassVar[frozenset[AttentionPattern]]
    summary: ClassVar[str]
    source: ClassVar[str]

    def __init__(self, pattern: AttentionPattern, *, fused: bool = True, lead: int = 0) -> None:
        self.pattern = pattern
        self.fused = fused
        self.lead = lead

    @abstractmethod
    def spans(self, progress: Progress) -> Spans:
        """Rows of the next forward."""


def rows_over(progress: Progress, q_start: IntArray, q_end: IntArray, kv_start: IntArray, kv_end: IntArray) -> Spans:
    """One row per sequence, which decides the block."""
    index = np.arange(len(progress))
    return Spans(index, q_start, q_end, kv_start, kv_end, decode_row=index, cached_len=progress.cached_len)
