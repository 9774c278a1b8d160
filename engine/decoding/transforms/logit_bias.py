"""Numbers added to the logits of chosen tokens."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from engine.columns import ColumnSpec
from engine.decoding.transform import LogitsTransform, TransformRows
from engine.params import NoParams
from engine.sampling_params import MAX_LOGIT_BIASES


class LogitBias(LogitsTransform):
    """The request's ``logit_bias``; it is no option of a strategy."""

    Params = NoParams
    summary: ClassVar[str] = "Adds the numbers of the request's logit_bias to the logits of its tokens."
    source: ClassVar[str] = "OpenAI API, logit_bias"

    @classmethod
    def active(cls, params: Any) -> bool:
        return False

    @classmethod
    def knobs(cls) -> Mapping[str, ColumnSpec]:
        return MappingProxyType(
            {
                "bias_ids": ColumnSpec(torch.int64, width=MAX_LOGIT_BIASES, fill=-1),
                "biases": ColumnSpec(torch.float32, width=MAX_LOGIT_BIASES),
            }
        )

    def apply(self, logits_MV: Tensor, rows: TransformRows) -> Tensor:
        return rows.vocabulary.add(logits_MV, rows.knobs["bias_ids"], rows.knobs["biases"])
