"""Iteration smoothing: a mask is fed together with what the model last believed of its position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le
from pydantic import Field
from torch import Tensor

from engine.decoding.transform import InputTransform
from engine.decoding.vocabulary import Vocabulary
from engine.params import params


class IterationSmoothing(InputTransform):
    """At denoising step t of a request, ``min(initial + growth * t, weight)`` of softmax(logits / temperature) is mixed
    into what the masked positions are fed at later steps.

    Meanwhile a decoder's ``threshold`` is at least 1 - ``smoothing_threshold_decay`` * t: the first steps, which know
    little, decide little.
    """

    summary: ClassVar[str] = "Masks are fed with the embeddings of their likely tokens mixed in."
    source: ClassVar[str] = "dInfer (arXiv 2510.08666), soft diffusion iteration"

    @params
    class Params:
        smoothing_weight: Annotated[
            float, Ge(0), Le(1), Field(description="Most that is mixed in; 0 is off, dInfer takes 0.3.")
        ] = 0.0
        smoothing_initial: Annotated[float, Ge(0), Le(1), Field(description="What is mixed in at first.")] = 0.15
        smoothing_growth: Annotated[float, Ge(0), Le(1), Field(description="How much that grows per step.")] = 0.02
        smoothing_threshold_decay: Annotated[
            float, Ge(0), Le(1), Field(description="Threshold decoders start at 1 and sink by this per step.")
        ] = 0.02
        smoothing_temperature: Annotated[
            float, Gt(0), Le(10), Field(description="Temperature of the distribution that is mixed in.")
        ] = 1.0

    @classmethod
    def active(cls, params: Any) -> bool:
        return bool(params.smoothing_weight)

    def mixture(
        self, logits_PV: Tensor, vocabulary: Vocabulary, knobs: Mapping[str, Tensor], total_step_P: Tensor
    ) -> Tensor:
        grown_P = knobs["smoothing_initial"] + knobs["smoothing_growth"] * total_step_P
        weight_P = grown_P.minimum(knobs["smoothing_weight"])
        likely_PV = vocabulary.softmax(logits_PV.div_(knobs["smoothing_temperature"][:, None]))
        return likely_PV.mul_(weight_P[:, None])

    def knob_floors(self, knobs: Mapping[str, Tensor], total_step_N: Tensor) -> Mapping[str, Tensor]:
        return {"threshold": 1 - knobs["smoothing_threshold_decay"] * total_step_N}
