"""How a sequence lies on its canvas.

Bidirectional and block-causal models differ here, in the rows that their cache policies emit, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import numpy as np

from engine.cache.policy import IntArray

MAX_ALIGNED_BLOCK_LENGTH = 256
"""Longest block of a block-causal model: a canvas may exceed prompt + max_tokens by one position less."""


def lay_out(
    prompt_ids: SequenceOf[int],
    completion_ids: SequenceOf[int],
    block_length: int,
    mask_token_id: int,
    *,
    origin: int,
    aligned: bool,
) -> tuple[IntArray, tuple[int, int]]:
    """The canvas of a new sequence and its first block to decode, which is the one that holds the first mask.

    ``completion_ids`` hold the mask id where nothing is decided (at least once). Blocks are counted from ``origin``,
    the end of the prompt or 0: then the first may begin with the prompt's tail. The last one may be short unless the
    canvas is ``aligned`` (block-causal models): then it ends at a boundary.
    """
    prompt_len = len(prompt_ids)
    end = canvas_length(prompt_len, len(completion_ids), block_length, aligned=aligned)
    canvas = np.full(end, mask_token_id, np.int64)
    canvas[:prompt_len] = prompt_ids
    canvas[prompt_len : prompt_len + len(completion_ids)] = completion_ids
    first_mask = prompt_len + list(completion_ids).index(mask_token_id)
    start = origin + (first_mask - origin) // block_length * block_length
    return canvas, (start, min(start + block_length, end))


def canvas_length(prompt_len: int, max_tokens: int, block_length: int, *, aligned: bool) -> int:
    """Positions of a canvas; an ``aligned`` one ends at a block boundary."""
    end = prompt_len + max_tokens
    return -(-end // block_length) * block_length if aligned else end
