"""The stream of training samples and the tokenizer."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from engine.evaluation.tasks.sample import is_held_out
from engine.evaluation.tasks.table import training_samples
from engine.training.data import SpecialIds, encode_prompt, encoded_samples
from engine.training.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(512, seed=0, num_samples=2000)


def test_no_held_out_prompt_is_trained_on() -> None:
    samples = list(islice(training_samples(0), 3000))
    assert not any(is_held_out(sample.prompt) for sample in samples)
    assert samples == list(islice(training_samples(0), 3000))
    assert samples != list(islice(training_samples(1), 3000))


def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer) -> None:
    for text in ("def f(x):\n    return x[::-1]", "Zürich 東京 🙂", '{"name": "Zorvin", "age": 34}', "a  b\t\n\n c"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_digits_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("is 4711").tokens[-4:] == ["Ġ4", "7", "1", "1"]


def test_special_tokens_come_first(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))


def test_chat_template_renders_what_training_sees(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path, 512)
    published = AutoTokenizer.from_pretrained(tmp_path)
    rendered = published.apply_chat_template(
        [{"role": "user", "content": "What is 2 + 3?"}], add_generation_prompt=True
    )
    assert list(rendered["input_ids"]) == encode_prompt(tokenizer, SpecialIds.of(tokenizer), "What is 2 + 3?")
    assert published.mask_token == "<|mask|>"
    assert published.eos_token_id == published.pad_token_id == 0


def test_answers_end_once_and_prompts_end_with_the_assistant(tokenizer: Tokenizer) -> None:
    ids = SpecialIds.of(tokenizer)
    for sample in islice(encoded_samples(tokenizer, seed=0), 500):
        assert sample.prompt[0] == ids.begin
        assert sample.prompt[-1] == ids.assistant
        assert sample.answer.index(ids.end) == len(sample.answer) - 1
