"""A whole training run of a network that fits in a test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.llm_engine import LLMEngine
from engine.sampling_params import SamplingParams
from engine.training.base import BaseConfig, base_job
from engine.training.checkpoint import load_weights
from engine.training.data import SpecialIds, encode_prompt
from engine.training.families import FAMILIES
from engine.training.metrics import TrainProgress
from engine.training.network import recipe_spec
from engine.training.optim import EMBEDDING
from engine.training.presets import RECIPES, ExpertShape
from engine.training.trainer import TrainSettings, train
from engine.training.validation import NextTokenDecoder

pytestmark = pytest.mark.slow

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "vocab_size": 384,
    "tokenizer_samples": 500,
    "tokens_per_step": 512,
    "warmup_steps": 2,
}
EXPERTS = {"tiny-llada-moe": {"experts": ExpertShape(number=4, per_token=2, width=8)}}


def run(preset: str, output: Path, *, steps: int, initial: Path | None = None) -> list[TrainProgress]:
    reports: list[TrainProgress] = []
    config = BaseConfig(preset=preset, steps=steps, initial=initial, validation_prompts=1)
    job = base_job(config, replace(RECIPES[preset], initial=None, **SMALL, **EXPERTS.get(preset, {})))
    settings = TrainSettings(output=output, compile=False, bfloat16=False, report_every_s=0.0)
    train(job, settings, reports.append)
    return reports


@pytest.mark.parametrize("preset", ["tiny-sdar", "tiny-llada", "tiny-llada-moe"])
def test_a_run_learns_and_leaves_a_checkpoint_that_the_engine_serves(preset: str, tmp_path: Path) -> None:
    reports = run(preset, tmp_path / "model", steps=30)
    assert reports[25].loss < 0.9 * reports[0].loss
    assert reports[-1].scores is not None
    assert reports[-1].fraction == 1.0
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert (record["preset"], record["seed"], record["steps"]) == (preset, 0, 30)
    assert len((tmp_path / "model.metrics.jsonl").read_text().splitlines()) == len(reports)
    engine = LLMEngine.from_pretrained(tmp_path / "model", EngineConfig(device="cpu"))
    (output,) = engine.generate(["What is 2 + 3?"], SamplingParams(max_tokens=8))
    assert output.finish_reason in ("stop", "length")


def test_the_autoregressive_base_is_a_qwen3_that_transformers_runs(tmp_path: Path) -> None:
    reports = run("tiny-ar", tmp_path / "model", steps=30)
    assert reports[-1].loss < 0.95 * reports[0].loss
    published = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    assert type(published).__name__ == "Qwen3ForCausalLM"
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    ids = SpecialIds.of(tokenizer)
    recipe = replace(RECIPES["tiny-ar"], **SMALL)
    model = FAMILIES["qwen3"].build(recipe_spec(recipe, FAMILIES["qwen3"], ids))
    load_weights(model, tmp_path / "model")
    prompts = [encode_prompt(tokenizer, ids, text) for text in ("What is 2 + 3?", "Tom has 4 apples.")]
    completions, forwards = NextTokenDecoder(model, ids).decode(prompts, 8)
    for prompt, completion, steps in zip(prompts, completions, forwards, strict=True):
        generated = published.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, suppress_tokens=[ids.mask]
        )
        expected = generated[0, len(prompt) :].tolist()
        assert steps == len(expected)
        assert completion == [token for token in expected if token != ids.end]


def test_a_run_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    first = run("tiny-sdar", tmp_path / "first", steps=30)
    second = run("tiny-sdar", tmp_path / "second", steps=2, initial=tmp_path / "first")
    assert second[0].loss < first[0].loss


def test_the_lladas_start_from_what_sdar_has_learned(tmp_path: Path) -> None:
    """The losses are those of the first step; noise and rows are the same for both."""
    run("tiny-sdar", tmp_path / "sdar", steps=60)
    for preset in ("tiny-llada", "tiny-llada-moe"):
        scratch = run(preset, tmp_path / f"{preset}-scratch", steps=1)
        adapted = run(preset, tmp_path / f"{preset}-adapted", steps=1, initial=tmp_path / "sdar")
        assert adapted[0].loss < 0.9 * scratch[0].loss


@pytest.mark.parametrize("preset", [name for name, recipe in RECIPES.items() if recipe.initial])
def test_a_recipe_fits_the_checkpoint_that_it_starts_from(preset: str) -> None:
    model = base_job(BaseConfig(preset=preset)).model
    scratch = base_job(BaseConfig(preset=preset), replace(RECIPES[preset], initial=None, tokenizer_samples=10)).model
    assert [p.shape for p in model.parameters()] == [p.shape for p in scratch.parameters()]
    assert not torch.equal(model.get_parameter(EMBEDDING), scratch.get_parameter(EMBEDDING))


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    run("tiny-sdar", tmp_path / "sdar", steps=1)
    with pytest.raises(ConfigError, match="does not fit"):
        base_job(BaseConfig(preset="tiny-sdar", initial=tmp_path / "sdar"))


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="tiny-llada"):
        base_job(BaseConfig(preset="huge"))
