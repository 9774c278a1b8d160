"""LLaDA's fixed schedule: a number of tokens per step that is set when the block begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from pydantic import Field
from torch import Tensor

from engine.columns import ColumnSpec
from engine.decoding.decoder import Candidates, Decoder, DecodeRows, Selection
from engine.decoding.ranking import top_k
from engine.params import MAX_STEPS, params
from engine.randomness import uniform


class LowConfidence(Decoder):
    """Spread the block's masks evenly over ``steps`` steps and fill the most confident ones at each.

    With n masks at the first step, step i fills floor(n / steps) + (i < n mod steps). More steps than masks leave
    steps with nothing to fill; they are skipped unless ``run_all_steps`` asks for them.
    """

    summary: ClassVar[str] = "A fixed number of tokens per step, most confident first (low-confidence remasking)."
    source: ClassVar[str] = "LLaDA (arXiv 2502.09992), section 2.4 and generate.py"
    state: ClassVar[Mapping[str, ColumnSpec]] = {"initial_masks": ColumnSpec(torch.int64)}

    @params
    class Params:
        steps: Annotated[
            int, Ge(0), Le(MAX_STEPS), Field(description="Denoising steps per block; 0 is one token per step.")
        ] = 0
        run_all_steps: Annotated[
            bool, Field(description="Run steps that have nothing left to fill, as the published code does.")
        ] = False

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        num_masked_N = rows.masked_NB.sum(dim=1)
        initial_N = torch.where(rows.step_N == 0, num_masked_N, rows.state["initial_masks"])
        asked_N = rows.knobs["steps"]
        steps_N = torch.where(asked_N > 0, asked_N, initial_N).clamp(min=1)
        quota_N = initial_N // steps_N + (rows.step_N < initial_N % steps_N)
        transfer_NB = top_k(self.scores(candidates, rows), rows.masked_NB, quota_N)
        done_N = ~rows.knobs["run_all_steps"].bool() | (rows.step_N + 1 >= steps_N)
        return Selection(transfer_NB, candidates.tokens_NB, {"initial_masks": initial_N}, done_N)

    def scores(self, candidates: Candidates, rows: DecodeRows) -> Tensor:
        """What positions are ranked by, ``[N, B]``."""
        return candidates.confidence_NB


class RandomOrder(LowConfidence):
    """The same schedule with positions in random order (LLaDA's ``remasking="random"``)."""

    summary: ClassVar[str] = "A fixed number of tokens per step, positions in random order."

    def scores(self, candidates: Candidates, rows: DecodeRows) -> Tensor:
        return uniform(rows.seed_N[:, None], rows.step_N[:, None], rows.positions_NB)
