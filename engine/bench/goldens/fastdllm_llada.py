"""LLaDA's own loop and Fast-dLLM's three for LLaDA, in the engine's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge
from pydantic import ConfigDict

from engine.bench.goldens.fastdllm_recording import AnyParams, Expression, Recording
from engine.sampling_params import SamplingParams

CACHES: Mapping[str, str] = {
    "llada.generate": "none",
    "fast_dllm.generate": "none",
    "fast_dllm.generate_with_prefix_cache": "prefix",
    "fast_dllm.generate_with_dual_cache": "dual",
}
"""The cache policy of each function."""

EOS_ID, EOT_ID = 126081, 126348
"""The ids that ``logits_eos_inf`` and ``confidence_eos_eot_inf`` name literally."""


class Params(AnyParams):
    """Arguments of the functions of ``CACHES``. Unknown ones are refused: they may change the result."""

    model_config = ConfigDict(extra="forbid")

    gen_length: Annotated[int, Ge(1)]
    block_length: Annotated[int, Ge(1)]
    steps: Annotated[int, Ge(1)]
    temperature: float = 0.0
    cfg_scale: float = 0.0
    remasking: str = "low_confidence"
    threshold: float | None = None
    factor: float | None = None
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False


def express(recording: Recording) -> Expression:
    """A recorded call as a request. LLaDA's loop runs every step of its schedule, also those with nothing to fill."""
    params = recording.params_as(Params)
    idles = recording.function == "llada.generate"
    return Expression(
        gen_length=params.gen_length,
        block_length=params.block_length,
        sampling=SamplingParams(
            max_tokens=params.gen_length, temperature=params.temperature, seed=recording.torch_seed, ignore_eos=True
        ),
        options=_options(params, CACHES[recording.function]),
        parity_options={"run_all_steps": True} if idles else {},
    )


def _options(params: Params, cache: str) -> dict[str, object]:
    options: dict[str, object] = {"cache": cache, "block_length": params.block_length}
    if params.factor is not None:
        options |= {"decoder": "factor", "factor": params.factor, "reference_tail": True}
    elif params.threshold is not None:
        options |= {"decoder": "threshold", "threshold": params.threshold}
    else:
        num_blocks = params.gen_length // params.block_length
        options |= {"decoder": params.remasking, "steps": params.steps // num_blocks}
    if params.cfg_scale:
        options["cfg_scale"] = params.cfg_scale
    if params.logits_eos_inf:
        options["banned_tokens"] = [EOS_ID]
    if params.confidence_eos_eot_inf:
        options["deferred_tokens"] = [EOS_ID, EOT_ID]
    return options
