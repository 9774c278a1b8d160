"""Questions as conversations and as texts to go on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.evaluation.datasets import read_data
from engine.evaluation.formats.table import FORMATS
from engine.evaluation.prompts import chosen_mode, prompt_ids
from engine.tokenizer import MissingTokenizer

DATA = Path(__file__).parent / "data"


class Letters(MissingTokenizer):
    """Ids are code points; a conversation is its turns, with the first letter of the role before each."""

    def __init__(self, has_chat_template: bool) -> None:
        super().__init__()
        self.has_chat_template = has_chat_template

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))

    def apply_chat_template(self, messages: Sequence[Mapping[str, object]]) -> list[int]:
        return self.encode("".join(f"<{str(turn['role'])[0]}>{turn['content']}" for turn in messages) + "<a>")


def asked(name: str, mode: str, num_shots: int = 0) -> str:
    shots_and_question = read_data(DATA / f"{name}.jsonl").samples[: num_shots + 1]
    *shots, sample = shots_and_question
    return "".join(map(chr, prompt_ids(Letters(mode == "chat"), FORMATS[name], sample, shots, "auto")))


def test_gsm8k_in_the_words_of_the_harness() -> None:
    text = asked("gsm8k", "completion", 1)
    assert text.startswith("Question: A baker fills 3 trays")
    assert "\nAnswer: The trays hold 3*12=<<3*12=36>>36 rolls." in text
    assert "#### 26\n\nQuestion: A ticket" in text
    assert text.endswith("What does each pay in dollars?\nAnswer:")


def test_humaneval_is_the_prompt_itself() -> None:
    (sample, *_) = read_data(DATA / "humaneval.jsonl").samples
    assert asked("humaneval", "completion") == sample.prompt


def test_mbpp_in_the_words_of_the_paper() -> None:
    text = asked("mbpp", "completion", 1)
    assert text.startswith("You are an expert Python programmer, and here is your task: Write a function to add up")
    assert "tests:\n\nassert digit_sum(123) == 6\nassert digit_sum(-40) == 4\n\n[BEGIN]\ndef digit_sum(n):" in text
    assert "[DONE]\n\nYou are an expert" in text
    assert text.endswith("assert math.isclose(area(2), 4 * math.pi)\n\n[BEGIN]\n")


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "mbpp"])
def test_in_a_chat_examples_are_earlier_turns(name: str) -> None:
    text = asked(name, "chat", 1)
    assert [part[:2] for part in text.split("<")[1:] if part[1:2] == ">"] == ["u>", "a>", "u>", "a>"]
    assert text.endswith("<a>")
    assert FORMATS[name].reply(read_data(DATA / f"{name}.jsonl").samples[0]) in text


def test_modes() -> None:
    assert chosen_mode("auto", Letters(True)) == "chat"
    assert chosen_mode("completion", Letters(True)) == chosen_mode("auto", Letters(False)) == "completion"
    with pytest.raises(ConfigError, match="no chat template"):
        chosen_mode("chat", Letters(False))
    with pytest.raises(ConfigError, match="choose one of: auto, chat, completion"):
        chosen_mode("talk", Letters(True))
