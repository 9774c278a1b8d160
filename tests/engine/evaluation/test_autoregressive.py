"""The autoregressive baseline: the same tokens as transformers' own loop, whatever is in the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

import engine
from engine.errors import CheckpointError
from engine.evaluation.autoregressive import AutoregressiveModel, is_autoregressive
from engine.evaluation.datasets import held_out_set
from engine.evaluation.evaluate import EvalConfig
from engine.evaluation.formats.plain import Plain
from engine.evaluation.tasks.sample import Sample
from engine.training.tokenizer import save_tokenizer

EMBEDDED = Path(engine.__file__).parent / "checkpoints" / "lacuna-tiny-sdar"
SAMPLES = [Sample("a", "What is 2 + 3?", "5"), Sample("b", "Tom has 4 apples and buys 9 more. How many?", "13")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3")
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    config = Qwen3Config(
        vocab_size=1152,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        eos_token_id=0,
        bos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)  # noqa: TID251 -- transformers draws from the global generator
        model = Qwen3ForCausalLM(config)
        model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, 512)
    return folder


def test_only_causal_language_models_that_are_no_diffusion_models_count(folder: Path, tmp_path: Path) -> None:
    assert is_autoregressive(folder)
    assert not is_autoregressive(EMBEDDED)
    assert not is_autoregressive(tmp_path)


def test_prompts_of_a_batch_get_the_tokens_they_get_alone(folder: Path) -> None:
    model = AutoregressiveModel(folder)
    together = model.evaluate(SAMPLES, max_tokens=12)
    alone = [model.evaluate([sample], max_tokens=12).answers[0] for sample in SAMPLES]
    assert list(together.answers) == alone
    assert len({answer.text for answer in alone}) == 2


def test_forwards_are_tokens_and_positions_the_prompt_and_all_tokens_but_the_last(folder: Path) -> None:
    model = AutoregressiveModel(folder)
    prompt = model.tokenizer.apply_chat_template([{"role": "user", "content": SAMPLES[0].prompt}])
    answer = model.evaluate(SAMPLES[:1], max_tokens=7).answers[0]
    assert (answer.tokens, answer.forwards) in ((7, 7), (answer.tokens, answer.tokens + 1))
    assert answer.positions == len(prompt) + answer.forwards - 1


def test_completions_end_before_the_formats_stops(folder: Path) -> None:
    model = AutoregressiveModel(folder)
    config = EvalConfig(mode="completion")
    whole = model.evaluate(SAMPLES[:1], max_tokens=12, config=config).answers[0]
    place = len(whole.text) // 2

    class Stopping(Plain):
        stop = (whole.text[place:],)

    cut = model.evaluate(SAMPLES[:1], max_tokens=12, config=replace(config, format=Stopping())).answers[0]
    assert cut.text == whole.text[:place]
    assert 0 < cut.tokens < whole.tokens
    assert cut.forwards <= whole.forwards


def test_a_folder_without_weights_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        AutoregressiveModel(tmp_path)


def test_the_shipped_base_is_right() -> None:
    model = AutoregressiveModel(EMBEDDED.with_name("lacuna-tiny-ar"))
    report = model.evaluate(held_out_set(["conversion", "code", "fact"], per_kind=4, seed=3), max_tokens=48)
    assert report.overall.right >= 11, report.to_table()
