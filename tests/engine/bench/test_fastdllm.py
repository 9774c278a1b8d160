from __future__ import annotations

from typing import Any

import pytest

from engine.bench.goldens.fastdllm import FUNCTIONS, strip_padding
from engine.bench.goldens.fastdllm_dream import recorded_draws
from engine.bench.goldens.fastdllm_recording import Expression, Recording
from engine.bench.goldens.results import NotSupportedError

LLADA: dict[str, Any] = {"gen_length": 32, "block_length": 8, "steps": 16, "mask_id": 290}
DREAM: dict[str, Any] = {"max_new_tokens": 32, "steps": 16, "mask_id": 290, "alg": "entropy"}


def recording(function: str, params: dict[str, Any], **fields: Any) -> Recording:
    base = {
        "id": "case",
        "checkpoint": "tiny",
        "function": function,
        "params": params,
        "prompt_ids": [[1, 2]],
        "attention_mask": None,
        "torch_seed": None,
        "optional": False,
        "quirk": None,
        "expected": {"output_ids": [[1, 2, 3]], "nfe": 1, "decode_forward": [[1]]},
    }
    return Recording.model_validate(base | fields)


def express(function: str, params: dict[str, Any], **fields: Any) -> Expression:
    return FUNCTIONS[function](recording(function, params, **fields))


def test_factor_goes_before_threshold_and_keeps_the_reference_tail() -> None:
    call = express("fast_dllm.generate_with_dual_cache", LLADA | {"threshold": 0.9, "factor": 1.5})
    assert call.options == {
        "decoder": "factor",
        "factor": 1.5,
        "reference_tail": True,
        "cache": "dual",
        "block_length": 8,
    }


def test_steps_are_spread_over_the_blocks() -> None:
    call = express("fast_dllm.generate_with_prefix_cache", LLADA)
    assert call.options == {"decoder": "low_confidence", "steps": 4, "cache": "prefix", "block_length": 8}


def test_idle_steps_run_in_parity_with_llada_only() -> None:
    assert express("llada.generate", LLADA).parity_options == {"run_all_steps": True}
    assert express("fast_dllm.generate", LLADA).parity_options == {}


def test_suppressed_ids_are_those_that_llada_names() -> None:
    flags = {"logits_eos_inf": True, "confidence_eos_eot_inf": True, "cfg_scale": 0.5}
    options = express("llada.generate", LLADA | flags).options
    assert (options["banned_tokens"], options["deferred_tokens"]) == ([126081], [126081, 126348])
    assert options["cfg_scale"] == 0.5


@pytest.mark.parametrize(("function", "base"), [("llada.generate", LLADA), ("dream.diffusion_generate", DREAM)])
def test_unknown_arguments_are_refused(function: str, base: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="new_rule"):
        express(function, base | {"new_rule": 1})


def test_left_padding_is_stripped() -> None:
    assert strip_padding([[9, 9, 1], [1, 2, 3]], [[0, 0, 1], [1, 1, 1]]) == [(1,), (1, 2, 3)]
    assert strip_padding([[9, 1]], None) == [(9, 1)]


def test_dream_ranks_by_the_filtered_distribution_without_drawing() -> None:
    sampling = express("dream.diffusion_generate", DREAM | {"top_p": 0.9, "top_k": None}).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 0.9, 0)
    assert (sampling.noise, sampling.confidence) == (False, "sampled")


def test_dream_is_one_block_with_every_step_of_its_schedule() -> None:
    options = express("dream.diffusion_generate", DREAM).options
    assert options == {
        "decoder": "entropy",
        "eps": 1e-3,
        "steps": 16,
        "run_all_steps": True,
        "cache": "none",
        "block_length": 32,
    }


def test_cached_dream_ranks_by_entropy_whatever_it_is_asked() -> None:
    params = DREAM | {"alg": "maskgit_plus", "block_length": 8, "dual_cache": True}
    options = express("fast_dllm_dream.block_diffusion_generate", params).options
    assert (options["decoder"], options["steps"], options["cache"]) == ("entropy", 4, "dual")


def test_random_order_without_its_numbers_is_not_supported() -> None:
    with pytest.raises(NotSupportedError, match="random numbers"):
        express("dream.diffusion_generate", DREAM | {"alg": "origin"}, torch_seed=1)


def test_recorded_numbers_belong_to_what_was_masked_row_by_row() -> None:
    expected = {"output_ids": [[0], [0]], "nfe": 2, "decode_forward": [[2, 1], [-1, 2]]}
    call = recording(
        "dream.diffusion_generate", DREAM, expected=expected, rand_draws=[[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7]]
    )
    first, second = recorded_draws(call)
    assert first == ((0.1, 0.2), (0.5, 1.0))
    assert second == ((0.3, 0.4), (0.6, 0.7))
