"""Dream's own loop and Fast-dLLM's two for Dream, in the engine's terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from annotated_types import Ge
from pydantic import ConfigDict

from engine.bench.goldens.fastdllm_recording import AnyParams, Draws, Expression, Recording
from engine.bench.goldens.results import NotSupportedError
from engine.sampling_params import SamplingParams

PARITY_ONLY = frozenset({"fast_dllm_dream.block_diffusion_generate"})
"""Functions whose refresh pass decides the first position of a block only. The engine decides the whole block there:
another policy, with other tokens."""


class Params(AnyParams):
    """Arguments of all three functions. Unknown ones are refused: they may change the result."""

    model_config = ConfigDict(extra="forbid")

    max_new_tokens: Annotated[int, Ge(1)]
    steps: Annotated[int, Ge(1)]
    alg: str
    eps: float = 1e-3
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    effective_top_k: int | None = None
    alg_temp: float | None = None
    threshold: float = 0.9
    block_length: int = 32
    dual_cache: bool = False


def express_schedule(recording: Recording) -> Expression:
    """Dream's loop: one block of all positions, every step of the schedule, also those that fill nothing."""
    params = recording.params_as(Params)
    options: dict[str, object] = {"decoder": params.alg, "eps": params.eps, "run_all_steps": True}
    if params.alg_temp:
        options["alg_temp"] = params.alg_temp
    draws = list(recorded_draws(recording)) if recording.rand_draws is not None else None
    if draws is None and recording.torch_seed is not None:
        raise NotSupportedError("random numbers of torch's global generator")
    return _expression(params, "none", params.max_new_tokens, params.steps, options, draws)


def express_threshold(recording: Recording) -> Expression:
    """Fast-dLLM without a cache: a threshold over the whole canvas, with a budget that grows by what was left."""
    params = recording.params_as(Params)
    if params.alg != "confidence_threshold":
        return express_schedule(recording)
    options = {"decoder": "budgeted_threshold", "threshold": params.threshold}
    return _expression(params, "none", params.max_new_tokens, params.steps, options)


def express_blocks(recording: Recording) -> Expression:
    """Fast-dLLM with a cache. Every algorithm but the threshold ranks by entropy, whatever its name."""
    params = recording.params_as(Params)
    cache = "dual" if params.dual_cache else "prefix"
    if params.alg == "confidence_threshold":
        return _expression(
            params, cache, params.block_length, None, {"decoder": "threshold", "threshold": params.threshold}
        )
    steps = params.steps // (params.max_new_tokens // params.block_length)
    options = {"decoder": "entropy", "eps": params.eps, "run_all_steps": True}
    return _expression(params, cache, params.block_length, steps, options)


def recorded_draws(recording: Recording) -> Iterator[Draws]:
    """The recorded numbers of each row, by step and position.

    A recording lists, per forward, one number for each position that was masked then, row after row; which ones were
    masked follows from when each was filled. Other positions get 1, which fills nothing.
    """
    filled_at = recording.expected.decode_forward
    drawn = [iter(numbers) for numbers in recording.rand_draws or ()]
    for row in filled_at:
        yield tuple(
            tuple(next(numbers) if not 0 < step < forward else 1.0 for step in row)
            for forward, numbers in enumerate(drawn, start=1)
        )


def _expression(
    params: Params,
    cache: str,
    block_length: int,
    steps: int | None,
    options: Mapping[str, object],
    draws: list[Draws] | None = None,
) -> Expression:
    """Dream takes the most probable token, and ranks by its probability in the filtered distribution."""
    greedy = params.temperature == 0
    return Expression(
        gen_length=params.max_new_tokens,
        block_length=block_length,
        sampling=SamplingParams(
            max_tokens=params.max_new_tokens,
            temperature=1.0 if greedy else params.temperature,
            top_k=params.top_k or params.effective_top_k or 0,
            top_p=1.0 if params.top_p is None else params.top_p,
            ignore_eos=True,
            confidence="sampled",
            noise=not greedy,
        ),
        options={"cache": cache, "block_length": block_length, **({"steps": steps} if steps else {}), **options},
        draws=draws,
    )
