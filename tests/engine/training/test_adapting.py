"""Whole adaptations of random Qwen3 checkpoints that fit in a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.llm_engine import LLMEngine
from engine.sampling_params import SamplingParams
from engine.training.adapt import adapt_job
from engine.training.adapt_config import AdaptConfig
from engine.training.trainer import TrainProgress, TrainSettings, train
from tests.engine.training.qwen3 import save_qwen3, save_qwen3_moe

pytestmark = pytest.mark.slow

WORDS = ("red", "blue", "green", "black")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Questions with one right answer, texts, and two bad rows."""
    rows: list[object] = [{"prompt": f"Say {word}", "answer": word} for word in WORDS]
    rows += [{"text": f"{word} and {word} again"} for word in WORDS]
    rows += [{"prompt": "nothing"}, ["no object"]]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("save", [save_qwen3, save_qwen3_moe])
def test_a_checkpoint_learns_to_fill_blocks_and_the_engine_serves_it(
    save: Callable[[Path], Path], data: Path, tmp_path: Path
) -> None:
    config = AdaptConfig(
        source=save(tmp_path / "ar"),
        data=(data,),
        validation=data,
        phases=("cpt", "sft"),
        phase_shares=(1.0, 3.0),
        block_length=8,
        sequence_length=64,
        rows_per_step=2,
        steps=60,
        rate=0.01,
    )
    reports: list[TrainProgress] = []
    settings = TrainSettings(output=tmp_path / "sdar", compile=False, bfloat16=False, report_every_s=0.0)
    job = adapt_job(config).job
    assert job.validate is not None
    before = job.validate()
    train(job, settings, reports.append)
    after = reports[-1].scores
    assert after is not None
    assert all(after[name] > 4 * value for name, value in before.items())
    assert job.samples.bad_rows is not None
    assert {text.split(": ")[-1] for text in job.samples.bad_rows.examples} == {
        "answer is missing",
        "not a JSON object but a list",
    }
    engine = LLMEngine.from_pretrained(tmp_path / "sdar", EngineConfig(device="cpu"))
    prompts = [engine.tokenizer.apply_chat_template([{"role": "user", "content": f"Say {word}"}]) for word in WORDS]
    outputs = engine.generate(prompts, SamplingParams(max_tokens=16))
    assert [output.finish_reason for output in outputs] == ["stop"] * len(WORDS)
