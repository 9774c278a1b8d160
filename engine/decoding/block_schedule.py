"""SDAR's remasking strategies: a schedule set by block length and steps, and three ways to choose the positions."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from pydantic import Field
from torch import Tensor

from engine.decoding.decoder import Candidates, Decoder, DecodeRows, Selection
from engine.decoding.ranking import top_k
from engine.params import MAX_STEPS, params

_SOURCE = "SDAR (arXiv 2510.06303), generate.py"


@params
class ScheduleParams:
    steps: Annotated[
        int, Ge(0), Le(MAX_STEPS), Field(description="Denoising steps per block; 0 is one token per step.")
    ] = 0


def scheduled_count(rows: DecodeRows) -> Tensor:
    """Tokens ``[N]`` due at this step: block_length / steps, the remainder on the first steps, at least one.

    Counted on the whole block, also where part of it is prompt.
    """
    asked_N = rows.knobs["steps"]
    steps_N = asked_N.where(asked_N > 0, rows.width_N)
    return (rows.width_N // steps_N + (rows.step_N < rows.width_N % steps_N)).clamp(min=1)


class Sequential(Decoder):
    """Fill the next positions from left to right."""

    Params = ScheduleParams
    summary: ClassVar[str] = "Left to right, a fixed number of tokens per step."
    source: ClassVar[str] = _SOURCE

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        first_N = rows.masked_NB.int().argmax(dim=1) + rows.positions_NB[:, 0]
        end_N = first_N + scheduled_count(rows)
        return Selection(rows.masked_NB & (rows.positions_NB < end_N[:, None]), candidates.tokens_NB)


class LowConfidenceStatic(Decoder):
    """Fill the scheduled number of most confident positions."""

    Params = ScheduleParams
    summary: ClassVar[str] = "A fixed number of tokens per step by block length, most confident first."
    source: ClassVar[str] = _SOURCE

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        transfer_NB = top_k(candidates.confidence_NB, rows.masked_NB, scheduled_count(rows))
        return Selection(transfer_NB, candidates.tokens_NB)


class LowConfidenceDynamic(Decoder):
    """Fill everything above the threshold if that is at least the scheduled number, else the scheduled number."""

    summary: ClassVar[str] = "Everything above the threshold, but never less than the fixed schedule."
    source: ClassVar[str] = _SOURCE

    @params
    class Params:
        threshold: Annotated[float, Ge(0), Le(1), Field(description="Fill what is more confident than this.")] = 0.85
        steps: Annotated[
            int, Ge(0), Le(MAX_STEPS), Field(description="Denoising steps per block; 0 is one token per step.")
        ] = 0

    def select(self, candidates: Candidates, rows: DecodeRows) -> Selection:
        count_N = scheduled_count(rows)
        confident_NB = (candidates.confidence_NB > rows.knobs["threshold"][:, None]) & rows.masked_NB
        scheduled_NB = top_k(candidates.confidence_NB, rows.masked_NB, count_N)
        enough_N1 = (confident_NB.sum(dim=1) >= count_N)[:, None]
        return Selection(confident_NB.where(enough_N1, scheduled_NB), candidates.tokens_NB)
