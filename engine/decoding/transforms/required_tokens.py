"""Token ids that a completion must hold.

Shape legend: N blocks, B width of the widest, M positions whose logits are at hand, K listed token ids, L positions of
a canvas, V logit columns of this rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from engine.columns import ColumnSpec, knob_columns
from engine.decoding.transform import LogitsTransform, TransformRows
from engine.decoding.transforms.stop_ids import STOP_IDS
from engine.decoding.vocabulary import Vocabulary
from engine.params import TokenIds, params

LEAST_LOG_PROBABILITY = -80.0
"""What a token is given at its reserved place at least, even where another transform rules it out."""


class RequiredTokens(LogitsTransform):
    """Each listed token occurs in the completion if that has as many places.

    * A stop id is only chosen behind the first occurrence of every listed token.
    * While more listed tokens are missing than places are free behind the block, the last ones of the list that find no
      place behind it have places of the block reserved: each, in the order of the list, the free place where it is most
      probable. A reserved place takes no other token. Its confidence is what the model gives the token there, so that
      decoders which rank by confidence leave improbable ones to the end. Places are reserved anew at each step.
    * A decoder that edits does not replace the first occurrence of a listed token.
    """

    summary: ClassVar[str] = "Tokens that the completion is sure to hold."
    source: ClassVar[str] = "Lacuna: lexical constraints by reserved places"

    @params
    class Params:
        required_tokens: Annotated[TokenIds, Field(description="Token ids that the completion must hold.")] = ()

    @classmethod
    def active(cls, params: Any) -> bool:
        return bool(params.required_tokens)

    @classmethod
    def knobs(cls) -> Mapping[str, ColumnSpec]:
        return {**knob_columns(cls.Params), **STOP_IDS}

    def apply(self, logits_MV: Tensor, rows: TransformRows) -> Tensor:
        required_MK = rows.knobs["required_tokens"]
        standing = _standing(required_MK, rows)
        reserved_M = _reserve(logits_MV, required_MK, standing, rows)
        first_MK = standing.first_NK[rows.block_M]
        positions_M1 = rows.positions_M[:, None]
        holds_M = ((required_MK == rows.tokens_M[:, None]) & (first_MK == positions_M1)).any(dim=1)
        early_M1 = (first_MK >= positions_M1).any(dim=1, keepdim=True)
        changed_MV = rows.vocabulary.without_listed(logits_MV, rows.knobs["stop_ids"].where(early_M1, -1))
        only_M = torch.where(holds_M, rows.tokens_M, reserved_M)
        return _allow_only(changed_MV, rows.vocabulary, only_M, rows.mask_token_id)


@dataclass(frozen=True, slots=True)
class _Standing:
    """``first_NK``: position of the first occurrence of each listed token in the completion, -1 where there is no
    entry, the width of the canvas where it is missing. ``due_NK``: missing, and without a free place behind."""

    first_NK: Tensor
    due_NK: Tensor


def _standing(required_MK: Tensor, rows: TransformRows) -> _Standing:
    """How the requests stand. Free places of a block behind those at hand count as behind: they are another call's."""
    num_blocks, width = rows.canvas_NL.shape
    place_L = torch.arange(width, device=required_MK.device)
    required_NK = required_MK.new_full((num_blocks, required_MK.shape[1]), -1)
    required_NK[rows.block_M] = required_MK
    inside_NL = (place_L >= rows.prompt_len_N[:, None]) & (place_L < rows.limit_N[:, None])
    found_NKL = (rows.canvas_NL[:, None, :] == required_NK[:, :, None]) & inside_NL[:, None, :]
    first_NK = torch.where(found_NKL, place_L, width).amin(dim=2).masked_fill(required_NK < 0, -1)
    last_N = rows.prompt_len_N.new_full((num_blocks,), -1)
    last_N = last_N.scatter_reduce(0, rows.block_M, rows.positions_M, "amax")
    free_NL = (rows.canvas_NL == rows.mask_token_id) & inside_NL
    behind_N = (free_NL & (place_L > last_N[:, None])).sum(dim=1)
    missing_NK = first_NK == width
    return _Standing(first_NK, missing_NK & (missing_NK.cumsum(dim=1) > behind_N[:, None]))


def _reserve(logits_MV: Tensor, required_MK: Tensor, standing: _Standing, rows: TransformRows) -> Tensor:
    """The token for which each position is reserved, -1 for none. The loop over the list is inherent: a place that one
    token takes is not there for the next."""
    block_M, offset_M = rows.block_M, rows.offset_M
    free_M1 = (rows.masked_M & (rows.positions_M < rows.limit_N[block_M]))[:, None]
    log_total_M1 = rows.vocabulary.log_total(logits_MV)[:, None]
    log_probability_MK = rows.vocabulary.pick(logits_MV, required_MK) - log_total_M1
    score_MK = log_probability_MK.clamp(min=LEAST_LOG_PROBABILITY).masked_fill(~free_M1, -torch.inf)
    shape = (*rows.masked_NB.shape, required_MK.shape[1])
    score_NBK = score_MK.new_full(shape, -torch.inf)
    score_NBK[block_M, offset_M] = score_MK
    entry_NB = required_MK.new_full(shape[:2], -1)
    for k in range(shape[2]):
        score_NB = score_NBK[:, :, k].masked_fill(entry_NB >= 0, -torch.inf)
        place_N1 = score_NB.argmax(dim=1, keepdim=True)
        taken_N1 = standing.due_NK[:, k : k + 1] & score_NB.gather(1, place_N1).isfinite()
        entry_NB.scatter_(1, place_N1, torch.where(taken_N1, k, entry_NB.gather(1, place_N1)))
    entry_M1 = entry_NB[block_M, offset_M][:, None]
    return torch.where(entry_M1 >= 0, required_MK.gather(1, entry_M1.clamp(min=0)), -1)[:, 0]


def _allow_only(logits_MV: Tensor, vocabulary: Vocabulary, token_M: Tensor, mask_token_id: int) -> Tensor:
    """Leave positions with a ``token_M`` (-1: any) that token alone, in place. Its probability stays what it is: the
    mask id, which is never proposed, takes the rest."""
    token_M1 = token_M[:, None]
    mask_M1 = torch.where(token_M1 >= 0, mask_token_id, -1)
    log_probability_M1 = vocabulary.pick(logits_MV, token_M1) - vocabulary.log_total(logits_MV)[:, None]
    log_probability_M1 = log_probability_M1.clamp(min=LEAST_LOG_PROBABILITY, max=0.0)
    rest_M1 = (-log_probability_M1.exp()).log1p()
    logits_MV.masked_fill_(token_M1 >= 0, -torch.inf)
    vocabulary.put(logits_MV, mask_M1, rest_M1)
    return vocabulary.put(logits_MV, token_M1, log_probability_M1)
