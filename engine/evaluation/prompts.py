"""How a question reaches the model: as a conversation, or as a text that it goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from engine.errors import ConfigError
from engine.evaluation.formats.format import Format
from engine.evaluation.tasks.sample import Sample
from engine.tokenizer import Tokenizer

Mode = Literal["auto", "chat", "completion"]


def chosen_mode(mode: str, tokenizer: Tokenizer) -> Literal["chat", "completion"]:
    """``auto`` is a chat where the model has a template; ConfigError where it is asked for and there is none."""
    if mode not in get_args(Mode):
        raise ConfigError(f"There is no mode {mode!r}; choose one of: {', '.join(get_args(Mode))}.", "mode")
    if mode == "chat" and not tokenizer.has_chat_template:
        raise ConfigError("This model has no chat template; use --mode completion.", "mode")
    return "chat" if tokenizer.has_chat_template and mode != "completion" else "completion"


def prompt_ids(tokenizer: Tokenizer, form: Format, sample: Sample, shots: Sequence[Sample], mode: str) -> list[int]:
    """Token ids of a question after solved examples, up to where the answer begins. Examples are earlier turns of the
    conversation, or stand above the question."""
    if chosen_mode(mode, tokenizer) == "completion":
        examples = "".join(form.opening(shot) + form.closing(shot) for shot in shots)
        return tokenizer.encode(examples + form.opening(sample))
    turns = [
        turn
        for shot in shots
        for turn in (
            {"role": "user", "content": form.question(shot)},
            {"role": "assistant", "content": form.reply(shot)},
        )
    ]
    return tokenizer.apply_chat_template([*turns, {"role": "user", "content": form.question(sample)}])
