"""What the tokenizer's JSON files say about special tokens, read without building a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.models.json_fields import JsonFields


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Ids of tokens by text, and the tokens with a role; all empty where there is no tokenizer.

    Published files disagree about the text of some ids, so one id may have several texts. ``file`` names the file that
    gave the roles.
    """

    ids: Mapping[str, int]
    mask_token_id: int | None
    eos_token_id: int | None
    file: str


def read_special_tokens(folder: Path) -> SpecialTokens:
    config = JsonFields.read_optional(folder / "tokenizer_config.json")
    legacy = JsonFields.read_optional(folder / "special_tokens_map.json")
    ids: dict[str, int] = {}
    for text, token_id in _added_tokens(folder, config):
        ids.setdefault(text, token_id)

    def role(name: str) -> int | None:
        text = config.text(name) or legacy.text(name)
        return None if text is None else ids.get(text)

    return SpecialTokens(ids=ids, mask_token_id=role("mask_token"), eos_token_id=role("eos_token"), file=config.file)


def _added_tokens(folder: Path, config: JsonFields) -> Iterator[tuple[str, int]]:
    """The most specific file first."""
    for token_id, token in config.mapping("added_tokens_decoder").items():
        if isinstance(token, dict) and token_id.isdecimal():
            yield str(token.get("content")), int(token_id)
    tokenizer = JsonFields.read_optional(folder / "tokenizer.json")
    listed = tokenizer.get("added_tokens")
    for token in listed if isinstance(listed, list) else []:
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            yield str(token.get("content")), int(token["id"])
    added = JsonFields.read_optional(folder / "added_tokens.json")
    yield from _integers(added.items())
    vocabulary = JsonFields("tokenizer.json: model", tokenizer.mapping("model")).mapping("vocab")
    yield from _integers(vocabulary.items())


def _integers(items: Iterable[tuple[str, object]]) -> Iterator[tuple[str, int]]:
    return ((text, token_id) for text, token_id in items if isinstance(token_id, int))
