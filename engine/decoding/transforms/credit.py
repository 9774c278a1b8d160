"""Credit decoding: tokens that keep being the best guess of a position gain weight."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from pydantic import Field
from torch import Tensor

from engine.columns import ColumnSpec
from engine.decoding.transform import LogitsTransform, TransformRows
from engine.params import params

MAX_CREDITED = 256
"""Most tokens remembered per position."""


class Credit(LogitsTransform):
    """Each step of a block, the best guess of a masked position earns its probability to the power ``credit_gamma``;
    all earlier credit of the position decays by ``credit_beta``. Logits gain ``credit_alpha`` * ln(1 + credit).

    Only tokens that were the best guess once have credit, one more per step at most. They are kept as a list per
    position. That is exact up to ``MAX_CREDITED`` different guesses at one position, which takes as many steps of one
    block; then the token with least credit is forgotten (at a decay of 0.8 less than float32 can add to 1).
    """

    summary: ClassVar[str] = "Best guesses that persist from step to step gain weight."
    source: ClassVar[str] = "dInfer (arXiv 2510.08666), credit decoding; CreditDecoding (arXiv 2510.06133)"

    state: ClassVar[Mapping[str, ColumnSpec]] = MappingProxyType(
        {
            "tokens": ColumnSpec(torch.int32, width=MAX_CREDITED, fill=-1, per_position=True),
            "credits": ColumnSpec(torch.float32, width=MAX_CREDITED, per_position=True),
        }
    )

    @params
    class Params:
        credit_alpha: Annotated[
            float, Ge(0), Le(10), Field(description="Weight of credit in the logits; 0 is off, dInfer takes 0.7.")
        ] = 0.0
        credit_gamma: Annotated[
            float, Ge(0), Le(10), Field(description="Power of the probability that a best guess earns.")
        ] = 0.2
        credit_beta: Annotated[
            float, Ge(0), Le(1), Field(description="Share of its credit a token keeps per step.")
        ] = 0.8

    @classmethod
    def active(cls, params: Any) -> bool:
        return bool(params.credit_alpha)

    def apply(self, logits_MV: Tensor, rows: TransformRows) -> Tensor:
        tokens_MW = rows.state["tokens"].long()
        credits_MW = rows.state["credits"] * rows.knobs["credit_beta"][:, None]
        best = rows.vocabulary.best(logits_MV)
        earned_M = best.probability_M ** rows.knobs["credit_gamma"]
        _earn(tokens_MW, credits_MW, best.token_M, earned_M, rows.masked_M)
        rows.state.store("tokens", tokens_MW)
        rows.state.store("credits", credits_MW)
        gain_MW = rows.knobs["credit_alpha"][:, None] * credits_MW.log1p()
        return rows.vocabulary.add(logits_MV, tokens_MW, gain_MW)


def _earn(tokens_MW: Tensor, credits_MW: Tensor, guess_M: Tensor, earned_M: Tensor, masked_M: Tensor) -> None:
    """Add what the guesses of masked positions earn, in place: to their own entry, else to a free one (-1), else in
    place of the smallest."""
    known_MW = tokens_MW == guess_M[:, None]
    order_MW = (-credits_MW).masked_fill(tokens_MW < 0, 1.0).masked_fill(known_MW, 2.0)
    entry_M1 = order_MW.argmax(dim=1, keepdim=True)
    before_M1 = torch.where(known_MW, credits_MW, 0.0).gather(1, entry_M1)
    earning_M1 = masked_M[:, None]
    token_M1 = torch.where(earning_M1, guess_M[:, None], tokens_MW.gather(1, entry_M1))
    credit_M1 = torch.where(earning_M1, before_M1 + earned_M[:, None], credits_MW.gather(1, entry_M1))
    tokens_MW.scatter_(1, entry_M1, token_M1)
    credits_MW.scatter_(1, entry_M1, credit_M1)
