"""Threshold decoding."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from pydantic import Field

from engine.decoding.decoder import Candidates, Decoder, DecodeRows, Selection
from engine.decoding.ranking import best
from engine.params import params


class Threshold(Decoder):
    """Fill every position whose confidence reaches the threshold, and always the most confident one."""

    summary: ClassVar[str] = "Fill all positions at least this confident, and always the best one."
    source: ClassVar[str] = "Fast-dLLM (arXiv 2505.22618), section 3.3; dInfer ThresholdParallelDecoder"

    @params
    class Params:
        threshold: Annotated[float, Ge(0), Le(1), Field(description="Least confidence; 1 is one token per step.")] = 0.9

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        confident_NB = candidates.confidence_NB >= rows.knobs["threshold"][:, None]
        leading_NB = best(candidates.confidence_NB, rows.masked_NB)
        return Selection((confident_NB & rows.masked_NB) | leading_NB, candidates.tokens_NB)
