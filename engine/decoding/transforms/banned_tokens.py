"""Token ids that a request never wants to see."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from engine.decoding.transform import LogitsTransform, TransformRows
from engine.params import TokenIds, params


class BannedTokens(LogitsTransform):
    """The listed tokens have probability 0; the others share what is left."""

    summary: ClassVar[str] = "Tokens that are never chosen."
    source: ClassVar[str] = "LLaDA, generate.py (logits_eos_inf)"

    @params
    class Params:
        banned_tokens: Annotated[TokenIds, Field(description="Token ids that are never chosen.")] = ()

    @classmethod
    def active(cls, params: Any) -> bool:
        return bool(params.banned_tokens)

    def apply(self, logits_MV: Tensor, rows: TransformRows) -> Tensor:
        return rows.vocabulary.without_listed(logits_MV, rows.knobs["banned_tokens"])
