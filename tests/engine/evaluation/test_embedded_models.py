"""The embedded checkpoints keep what they promise: right answers, and several tokens per forward."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine
from engine.config import EngineConfig
from engine.evaluation.datasets import held_out_set
from engine.evaluation.evaluate import evaluate
from engine.llm_engine import LLMEngine
from engine.sampling_params import SamplingParams

CHECKPOINTS = Path(engine.__file__).parent / "checkpoints"
KINDS = ["conversion", "code", "story", "fact"]


@pytest.mark.parametrize("name", ["sdar", "sdar-b8", "llada", "llada-moe", "llada-moe-td"])
def test_threshold_decoding_is_right_and_parallel(name: str) -> None:
    model = LLMEngine.from_pretrained(CHECKPOINTS / f"lacuna-tiny-{name}", EngineConfig(device="cpu"))
    strategy = model.strategy({"decoder": "threshold", "threshold": 0.9})
    samples = held_out_set(KINDS, per_kind=8, seed=3)
    report = evaluate(model, samples, SamplingParams(max_tokens=64), strategy)
    assert report.overall.accuracy >= 0.9, report.to_table()
    assert report.overall.tokens_per_forward >= 2.0, report.to_table()
