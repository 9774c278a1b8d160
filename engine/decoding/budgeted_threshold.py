"""Threshold decoding over the whole canvas with a growing budget: Fast-dLLM's rule for Dream without a cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from pydantic import Field

from engine.columns import ColumnSpec
from engine.decoding.decoder import Candidates, Decoder, DecodeRows, Selection
from engine.decoding.ranking import best, top_k
from engine.params import MAX_STEPS, params


class BudgetedThreshold(Decoder):
    """Consider the k most confident positions; fill those that reach the threshold, and always the best.

    k is block_length / steps plus what earlier steps considered and left. After ``steps`` steps only the left-overs
    are considered.
    """

    summary: ClassVar[str] = "Threshold over a number of candidates per step that grows with what was left."
    source: ClassVar[str] = "Fast-dLLM (arXiv 2505.22618), Dream without cache"
    state: ClassVar[Mapping[str, ColumnSpec]] = {"left": ColumnSpec(torch.int64)}

    @params
    class Params:
        threshold: Annotated[float, Ge(0), Le(1), Field(description="Least confidence.")] = 0.9
        steps: Annotated[
            int, Ge(0), Le(MAX_STEPS), Field(description="Steps over which candidates are spread; 0: one each.")
        ] = 0

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        steps_N = torch.where(rows.knobs["steps"] > 0, rows.knobs["steps"], rows.width_N)
        quota_N = torch.where(rows.step_N < steps_N, rows.width_N // steps_N, 0)
        left_N = torch.where(rows.step_N == 0, 0, rows.state["left"])
        considered_NB = top_k(candidates.confidence_NB, rows.masked_NB, quota_N + left_N)
        confident_NB = candidates.confidence_NB >= rows.knobs["threshold"][:, None]
        transfer_NB = (considered_NB & confident_NB) | best(candidates.confidence_NB, rows.masked_NB)
        left_N = (considered_NB & ~transfer_NB).sum(dim=1)
        return Selection(transfer_NB, candidates.tokens_NB, {"left": left_N})
