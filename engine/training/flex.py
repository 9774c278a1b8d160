"""Attention in training without a written-out mask: a rule per pair of tokens, and a list of the blocks that it skips.

On CUDA both the operator and the making of the list are compiled, so that nothing of size N * N is ever stored; on a
CPU they run as they are, which is for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from engine.attention.backend import AttentionBackend
from engine.training.noise import PADDING_BLOCK


class FlexAttention(AttentionBackend):
    """Tokens are ``batch`` sequences of ``length`` laid end to end, as for DenseAttention."""

    def __init__(self, batch: int, length: int, mask: BlockMask) -> None:
        self._shape = (batch, length)
        self._mask = mask

    def attend(self, layer: int, queries_THD: Tensor, keys_TKD: Tensor, values_TKD: Tensor) -> Tensor:
        queries, keys, values = (
            x.unflatten(0, self._shape).transpose(1, 2) for x in (queries_THD, keys_TKD, values_TKD)
        )
        attend = _compiled(flex_attention, queries.is_cuda)
        shared = queries.shape[1] != keys.shape[1]
        mixed: Tensor = attend(queries, keys, values.to(queries.dtype), block_mask=self._mask, enable_gqa=shared)
        return mixed.transpose(1, 2).flatten(0, 1)


def flex_mask(blocks_RN: Tensor, noised_RN: Tensor, samples_RN: Tensor | None = None) -> BlockMask:
    """The mask of :func:`engine.training.noise.attention_mask`, as a rule and the blocks of pairs that it rules out."""
    rows, length = blocks_RN.shape
    make = _compiled(create_block_mask, blocks_RN.is_cuda)
    rule = pair_rule(blocks_RN, noised_RN, samples_RN)
    mask: BlockMask = make(rule, rows, None, length, length, device=blocks_RN.device)
    return mask


def pair_rule(
    blocks_RN: Tensor, noised_RN: Tensor, samples_RN: Tensor | None
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Whether, in a row (for any head), the token at one place may see that at another."""
    numbers_RN = torch.zeros_like(blocks_RN) if samples_RN is None else samples_RN

    def may_see(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query_block, key_block = blocks_RN[row, query], blocks_RN[row, key]
        query_noised, key_noised = noised_RN[row, query], noised_RN[row, key]
        own = key_block == query_block
        clean_key = (key_block < query_block) | (own & ~query_noised)
        real = (key_block != PADDING_BLOCK) & (query_block != PADDING_BLOCK)
        together = real & (numbers_RN[row, query] == numbers_RN[row, key])
        return (together & torch.where(key_noised, query_noised & own, clean_key)) | (query == key)

    return may_see


@cache
def _compiled(function: Any, on_cuda: bool) -> Any:
    return torch.compile(function, dynamic=True) if on_cuda else function
