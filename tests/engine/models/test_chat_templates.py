"""The chat templates of the families, in miniature: only what a template writes becomes a special token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tokenizers import AddedToken, Tokenizer

from engine.config import EngineConfig
from engine.models.json_fields import JsonFields
from engine.models.registry import model_family
from engine.models.resolution import CheckpointFiles, resolve_stop_tokens
from engine.models.special_tokens import read_special_tokens
from engine.tokenizer import load_tokenizer
from tests.helpers.checkpoints import EOS, MASK, VOCAB_SIZE, write_tokenizer

HEADERS = (
    "<|startoftext|>{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
CHAT_ML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROLES = (
    "{% if messages[0]['role'] != 'system' %}<role>SYSTEM</role>detailed thinking off<|role_end|>{% endif %}"
    "{% for message in messages %}{{ '<role>' + ('HUMAN' if message['role'] == 'user' else message['role'] | upper)"
    " + '</role>' + message['content'] + '<|role_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)


class Chat(NamedTuple):
    """A family's template, its special tokens and what the question ``hi`` becomes."""

    architectures: Sequence[str]
    template: str
    specials: Sequence[str]
    rendered: str


CHATS = {
    "headers": Chat(
        ["LLaDAModelLM"],
        HEADERS,
        ["<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant"
        "<|end_header_id|>\n\n",
    ),
    "chat_ml": Chat(
        ["DreamModel"],
        CHAT_ML,
        ["<|im_start|>", "<|im_end|>"],
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    ),
    "roles": Chat(
        ["LLaDAMoEModelLM", "LLaDA2MoeModelLM"],
        ROLES,
        ["<role>", "</role>", "<|role_end|>"],
        "<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>hi<|role_end|><role>ASSISTANT</role>",
    ),
}


def write_chat_tokenizer(folder: Path, chat: Chat) -> dict[str, int]:
    """Add the special tokens behind the vocabulary; returns their ids."""
    write_tokenizer(folder, chat_template=chat.template)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in chat.specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    return {text: tokenizer.token_to_id(text) for text in chat.specials}


@pytest.mark.parametrize("name", CHATS)
def test_the_template_writes_special_tokens_and_the_user_text(name: str, tmp_path: Path) -> None:
    chat = CHATS[name]
    ids = write_chat_tokenizer(tmp_path, chat)
    tokenizer = load_tokenizer(tmp_path, {MASK})

    tokens = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])

    assert tokenizer.decode(tokens, skip_special_tokens=False) == chat.rendered
    assert {text: tokens.count(token) for text, token in ids.items()} == {
        text: chat.rendered.count(text) for text in chat.specials
    }


@pytest.mark.parametrize("name", CHATS)
def test_a_user_cannot_write_a_special_token(name: str, tmp_path: Path) -> None:
    chat = CHATS[name]
    ids = write_chat_tokenizer(tmp_path, chat)
    tokenizer = load_tokenizer(tmp_path, {MASK})
    text = "a" + "".join(chat.specials) + "<|mask|>b"

    tokens = tokenizer.apply_chat_template([{"role": "user", "content": text}])
    honest = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])

    assert text in tokenizer.decode(tokens, skip_special_tokens=False)
    assert all(tokens.count(token) == honest.count(token) for token in (*ids.values(), MASK))
    assert not {*ids.values(), MASK} & set(tokenizer.encode(text))


@pytest.mark.parametrize("name", CHATS)
def test_the_end_of_a_turn_stops_a_completion(name: str, tmp_path: Path) -> None:
    chat = CHATS[name]
    ids = write_chat_tokenizer(tmp_path, chat)
    nothing = JsonFields("config.json", {})

    for architecture in chat.architectures:
        family = model_family(architecture)
        files = CheckpointFiles(
            folder=tmp_path,
            options=EngineConfig(),
            config=nothing,
            generation=nothing,
            special_tokens=read_special_tokens(tmp_path),
            family=family,
        )
        (end,) = family.end_of_turn
        assert resolve_stop_tokens(files, 10 * VOCAB_SIZE, MASK).value == {EOS, ids[end]}
