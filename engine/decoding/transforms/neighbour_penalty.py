"""Against immediate repetition: a place is less likely to hold what stands before it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from pydantic import Field
from torch import Tensor

from engine.decoding.transform import LogitsTransform, TransformRows
from engine.params import params


class NeighbourPenalty(LogitsTransform):
    """Lower the logit of the token at the previous place of the block, of the mask id too while that is a mask. The
    first place of a block has no neighbour."""

    summary: ClassVar[str] = "Makes each place less likely to repeat the one before it in the block."
    source: ClassVar[str] = "SGLang JointThreshold (penalty_lambda)"

    @params
    class Params:
        neighbour_penalty: Annotated[
            float, Ge(0), Le(100), Field(description="Taken from the logit of the previous place's token; 0 is off.")
        ] = 0.0

    @classmethod
    def active(cls, params: Any) -> bool:
        return bool(params.neighbour_penalty > 0)

    def apply(self, logits_MV: Tensor, rows: TransformRows) -> Tensor:
        before_M1 = rows.tokens_NB[rows.block_M, (rows.offset_M - 1).clamp(min=0)][:, None]
        penalty_M = torch.where(rows.offset_M > 0, rows.knobs["neighbour_penalty"], 0.0)
        return rows.vocabulary.add(logits_MV, before_M1, -penalty_M[:, None])
