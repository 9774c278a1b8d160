from __future__ import annotations

from typing import Any

import pytest

from engine.bench.goldens.results import NotSupportedError
from engine.bench.goldens.sdar import Recording, Run, TraceStep, strategy_options, trace_steps

EXPECTED: dict[str, Any] = {
    "output_ids": [1, 2, 3, 4],
    "forwards": {"prefill": 0, "denoise": 2, "commit": 1, "total": 3},
    "completion_ids": [3, 4],
    "finish_reason": "length",
    "trace": [],
}


def recording(**changes: Any) -> Recording:
    fields = {
        "id": "case",
        "checkpoint": "models/m",
        "prompt_ids": [1, 2],
        "mask_id": 290,
        "block_length": 4,
        "denoising_steps": 3,
        "gen_length": 3,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "stop_ids": None,
        "runs": [{"strategy": "sequential", "expected": EXPECTED}],
    }
    return Recording.model_validate(fields | changes)


def run(strategy: str, **knobs: Any) -> Run:
    return Run.model_validate({"strategy": strategy, "expected": EXPECTED} | knobs)


def test_canvas_ends_at_a_block_boundary() -> None:
    assert recording().canvas_len == 8


def test_knobs_take_the_engines_names() -> None:
    chosen = strategy_options(recording(), run("low_confidence_dynamic", confidence_threshold=0.3))
    assert chosen == {
        "decoder": "low_confidence_dynamic",
        "cache": "block",
        "block_length": 4,
        "steps": 3,
        "threshold": 0.3,
    }


def test_rule_without_a_schedule_ignores_the_steps() -> None:
    chosen = strategy_options(recording(), run("entropy_bounded", eb_threshold=0.4))
    assert (chosen["gamma"], "steps" in chosen) == (0.4, False)


def test_knob_that_a_decoder_lacks_is_not_dropped_silently() -> None:
    with pytest.raises(NotSupportedError, match="gamma"):
        strategy_options(recording(), run("sequential", eb_threshold=0.4))


def test_trace_gives_the_step_of_every_position() -> None:
    trace = [TraceStep(0, 0, [3], [7], [0.5]), TraceStep(1, 0, [0, 2], [7, 8], [0.5, 0.5])]
    assert trace_steps(trace, 4, 8) == [0, 0, 0, 1, 2, 0, 2, 0]
