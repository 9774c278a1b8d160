"""Rows of the user's data with a chat template of ChatML, and without one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.fast_tokenizer import FastTokenizer
from engine.tokenizer import load_tokenizer
from engine.training.jsonl import BadRowError
from engine.training.row_encoder import RowEncoder
from tests.engine.training.qwen3 import save_tokenizer

END, TURN, TURN_END = 256, 257, 258


def encoder(folder: Path) -> RowEncoder:
    tokenizer = load_tokenizer(folder, {END, TURN_END, 259})
    assert isinstance(tokenizer, FastTokenizer)
    return RowEncoder(tokenizer=tokenizer, phase="sft", max_tokens=64, end=END, stop_ids=frozenset({END, TURN_END}))


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> RowEncoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return encoder(folder)


@pytest.fixture(scope="module")
def cpt(sft: RowEncoder) -> RowEncoder:
    return replace(sft, phase="cpt", max_tokens=10)


def test_a_prompt_with_its_answer_is_a_conversation_of_two_turns(sft: RowEncoder) -> None:
    (sample,) = sft({"prompt": "Hi", "answer": "Yes"})
    assert sft.tokenizer.decode(sample.prompt, skip_special_tokens=False) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert sft.tokenizer.decode(sample.answer, skip_special_tokens=False) == "Yes<|im_end|>"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    assert sft({"messages": messages}) == [sample]
    assert sample.prompt == sft.tokenizer.apply_chat_template(messages[:1])


def test_the_last_answer_of_a_conversation_is_trained(sft: RowEncoder) -> None:
    turns = [("system", "s"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]
    (sample,) = replace(sft, max_tokens=200)({"messages": [{"role": role, "content": text} for role, text in turns]})
    assert sft.tokenizer.decode(sample.answer) == "4"
    assert sample.prompt.count(TURN) == 5


def test_special_tokens_in_the_data_are_plain_text(sft: RowEncoder) -> None:
    (sample,) = sft({"prompt": "a<|im_end|>", "answer": "<|endoftext|>b"})
    assert sample.prompt.count(TURN_END) == 1
    assert END not in sample.answer
    assert sft.tokenizer.decode(sample.answer) == "<|endoftext|>b"


def test_without_a_template_prompt_and_answer_follow_each_other(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": None}))
    plain = encoder(tmp_path)
    (sample,) = plain({"prompt": "Hi", "answer": " you"})
    assert plain.tokenizer.decode(sample.prompt) == "Hi"
    assert sample.answer == [*plain.tokenizer.encode(" you"), END]
    with pytest.raises(BadRowError, match="chat template"):
        plain({"messages": [{"role": "assistant", "content": "x"}]})


def test_long_texts_are_cut_into_pieces(cpt: RowEncoder) -> None:
    text = "abcdefghijklmnopqrstuvw"
    pieces = cpt({"text": text})
    assert [len(piece.answer) for piece in pieces] == [10, 10, 4]
    assert not any(piece.prompt for piece in pieces)
    assert [token for piece in pieces for token in piece.answer] == [*cpt.tokenizer.encode(text), END]


def test_continued_pretraining_takes_conversations_whole(sft: RowEncoder, cpt: RowEncoder) -> None:
    row = {"prompt": "Hi", "answer": "Yes"}
    (sample,) = sft(row)
    assert [token for piece in cpt(row) for token in piece.answer] == sample.prompt + sample.answer


def test_texts_are_left_to_the_phase_that_trains_on_them(sft: RowEncoder) -> None:
    assert replace(sft, leave_texts=True)({"text": "abc"}) == []
    with pytest.raises(BadRowError, match="stage cpt"):
        sft({"text": "abc"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "prompt is missing"),
        ({"prompt": "a"}, "answer is missing"),
        ({"prompt": "a", "answer": 5}, "answer must be a string, found int"),
        ({"prompt": "a", "answer": " "}, "the answer is empty"),
        ({"prompt": "a", "answer": "b" * 60}, "tokens, more than the 64"),
        ({"text": ""}, "text is empty"),
        ({"text": None}, "text is missing"),
        ({"messages": []}, "list of objects"),
        ({"messages": ["a"]}, "list of objects"),
        ({"messages": [{"role": "user", "content": "a"}]}, "last message must be the assistant's"),
        ({"messages": [{"role": "robot", "content": "a"}]}, r"messages\[0\]\.role"),
        ({"prompt": "a", "answer": "\ud800"}, "not valid Unicode"),
    ],
)
def test_unusable_rows_say_why(sft: RowEncoder, row: dict[str, object], reason: str) -> None:
    with pytest.raises(BadRowError, match=reason):
        sft(row)
