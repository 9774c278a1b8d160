"""A least length of the completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le
from pydantic import Field
from torch import Tensor

from engine.columns import ColumnSpec, knob_columns
from engine.decoding.transform import LogitsTransform, TransformRows
from engine.decoding.transforms.stop_ids import STOP_IDS
from engine.params import params


class MinTokens(LogitsTransform):
    """No stop id is chosen at the first ``min_tokens`` places of the completion. (Stop strings are not held back.)"""

    summary: ClassVar[str] = "No end of the completion before so many tokens."
    source: ClassVar[str] = "vLLM, SamplingParams.min_tokens"

    @params
    class Params:
        min_tokens: Annotated[
            int, Ge(0), Le(2**31 - 1), Field(description="Tokens of the completion before it may end.")
        ] = 0

    @classmethod
    def active(cls, params: Any) -> bool:
        return bool(params.min_tokens)

    @classmethod
    def knobs(cls) -> Mapping[str, ColumnSpec]:
        return {**knob_columns(cls.Params), **STOP_IDS}

    def apply(self, logits_MV: Tensor, rows: TransformRows) -> Tensor:
        length_M = rows.positions_M - rows.prompt_len_N[rows.block_M]
        early_M = length_M < rows.knobs["min_tokens"]
        return rows.vocabulary.without_listed(logits_MV, rows.knobs["stop_ids"].where(early_M[:, None], -1))
