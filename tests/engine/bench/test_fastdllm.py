from __future__ import annotations

from typing import Any

import pytest

from engine.bench.goldens.fastdllm import Params, strategy_options, strip_padding

BASE: dict[str, Any] = {"gen_length": 32, "block_length": 8, "steps": 16, "mask_id": 290}


def options(function: str, **params: Any) -> dict[str, object]:
    return strategy_options(function, Params.model_validate(BASE | params), "parity")


def test_factor_goes_before_threshold_and_keeps_the_reference_tail() -> None:
    assert options("fast_dllm.generate_with_dual_cache", threshold=0.9, factor=1.5) == {
        "decoder": "factor",
        "factor": 1.5,
        "reference_tail": True,
        "cache": "dual",
        "block_length": 8,
    }


def test_steps_are_spread_over_the_blocks() -> None:
    chosen = options("fast_dllm.generate_with_prefix_cache")
    assert chosen == {"decoder": "low_confidence", "steps": 4, "cache": "prefix", "block_length": 8}


def test_idle_steps_run_in_parity_with_llada_only() -> None:
    assert options("llada.generate")["run_all_steps"] is True
    assert "run_all_steps" not in strategy_options("llada.generate", Params.model_validate(BASE), "default")


def test_suppressed_ids_are_those_that_llada_names() -> None:
    chosen = options("llada.generate", logits_eos_inf=True, confidence_eos_eot_inf=True, cfg_scale=0.5)
    assert (chosen["banned_tokens"], chosen["deferred_tokens"]) == ([126081], [126081, 126348])
    assert chosen["cfg_scale"] == 0.5


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="new_rule"):
        Params.model_validate(BASE | {"new_rule": 1})


def test_left_padding_is_stripped() -> None:
    assert strip_padding([[9, 9, 1], [1, 2, 3]], [[0, 0, 1], [1, 1, 1]]) == [(1,), (1, 2, 3)]
    assert strip_padding([[9, 1]], None) == [(9, 1)]
