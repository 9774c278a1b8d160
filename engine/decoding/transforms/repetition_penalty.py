"""The multiplicative repetition penalty."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from pydantic import Field
from torch import Tensor

from engine.decoding.transform import LogitsTransform, TransformRows
from engine.params import params


class RepetitionPenalty(LogitsTransform):
    """Tokens that stand in the prompt or are decided anywhere in the completion, before a position or after it, lose:
    positive logits are divided by the penalty, negative ones multiplied (below 1 they gain). ``repetition_window``
    counts only tokens at most so far away. A position's own token does not count against it."""

    summary: ClassVar[str] = "Tokens that the canvas already holds become less likely."
    source: ClassVar[str] = "CTRL (arXiv 1909.05858), section 4.1; transformers' RepetitionPenaltyLogitsProcessor"

    @params
    class Params:
        repetition_penalty: Annotated[
            float, Gt(0), Le(10), Field(description="Factor for tokens that already occur; 1 is off.")
        ] = 1.0
        repetition_window: Annotated[
            int, Ge(0), Le(2**31 - 1), Field(description="Count tokens at most so many positions away; 0: all.")
        ] = 0

    @classmethod
    def active(cls, params: Any) -> bool:
        return bool(params.repetition_penalty != 1)

    def apply(self, logits_MV: Tensor, rows: TransformRows) -> Tensor:
        tokens_ML = self._occurring(rows)
        logits_ML = rows.vocabulary.own(logits_MV, tokens_ML)
        penalty_M1 = rows.knobs["repetition_penalty"][:, None]
        penalised_ML = torch.where(logits_ML > 0, logits_ML / penalty_M1, logits_ML * penalty_M1)
        return rows.vocabulary.put(logits_MV, tokens_ML, penalised_ML)

    def _occurring(self, rows: TransformRows) -> Tensor:
        """The tokens that count at each position, -1 where none does."""
        tokens_ML = rows.canvas_NL[rows.block_M]
        place_L = torch.arange(tokens_ML.shape[1], device=tokens_ML.device)
        distance_ML = (place_L - rows.positions_M[:, None]).abs()
        window_M1 = rows.knobs["repetition_window"][:, None]
        counts_ML = (tokens_ML != rows.mask_token_id) & (distance_ML > 0)
        counts_ML &= (window_M1 == 0) | (distance_ML <= window_M1)
        return tokens_ML.where(counts_ML, -1)
