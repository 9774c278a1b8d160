"""The mask token of a checkpoint that has none yet: its id, its text, its embedding, and the tokenizer's files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from engine.errors import CheckpointError
from engine.layers.embedding import Embedding
from engine.models.json_fields import JsonFields
from engine.models.special_tokens import SpecialTokens
from engine.models.transformer import Transformer

MASK_TEXT = "<|MASK|>"
KNOWN_TEXTS = (MASK_TEXT, "<|mask|>", "<MASK>")
VOCABULARY_MULTIPLE = 64
TOKENIZER_FILE, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
TOKENIZER_FILES = (
    TOKENIZER_FILE,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


Json = dict[str, Any]


class MaskToken(NamedTuple):
    """``is_new``: no file of the checkpoint has it yet."""

    id: int
    text: str
    is_new: bool


Edit = Callable[[Json, MaskToken], Json]


def choose_mask_token(config: JsonFields, tokens: SpecialTokens) -> MaskToken:
    """The token that the files name as the mask, else the first id behind all that the tokenizer uses."""
    texts = {token_id: text for text, token_id in reversed(list(tokens.ids.items()))}
    named = (
        config.optional_integer("mask_token_id"),
        tokens.mask_token_id,
        *(tokens.ids.get(text) for text in KNOWN_TEXTS),
    )
    for token_id in named:
        if token_id is not None:
            return MaskToken(token_id, texts.get(token_id, MASK_TEXT), token_id not in texts)
    return MaskToken(max(texts, default=-1) + 1, MASK_TEXT, is_new=True)


def vocabulary_with(mask: MaskToken, vocab_size: int) -> int:
    """Rows of the embedding that has a row for the mask: as many as there are, or more by whole multiples of 64."""
    return vocab_size if mask.id < vocab_size else -(-(mask.id + 1) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


@torch.no_grad()
def add_mask_row(model: Transformer, mask: MaskToken, used_ids: Iterable[int], vocab_size: int) -> None:
    """Start the mask's embedding (and the head's row) as the mean over the ids that the tokenizer uses; the embedding
    grows to ``vocab_size`` rows where it has fewer."""
    used = torch.tensor(sorted(set(used_ids) - {mask.id}))
    for name in ("embed_tokens", "lm_head"):
        table = getattr(model, name)
        if table is None:
            continue
        if table.weight.shape[0] < vocab_size:
            table = _grown(table, vocab_size, table.weight[used].mean(0))
            setattr(model, name, table)
        table.weight[mask.id] = table.weight[used].mean(0)


def _grown(table: Embedding, vocab_size: int, filling_D: Tensor) -> Embedding:
    stored, size = table.weight.shape
    with torch.device("meta"):
        grown = Embedding(vocab_size, size)
    grown.weight = nn.Parameter(torch.cat([table.weight, filling_D.expand(vocab_size - stored, size)]))
    return grown


def tokenizer_writer(folder: Path, mask: MaskToken) -> Callable[[Path], None]:
    """Read the tokenizer's files now; the result writes them, with the mask token set, into another folder."""
    if not (folder / TOKENIZER_FILE).exists():
        message = f"{folder / TOKENIZER_FILE} is missing; a checkpoint needs it to be trained"
        raise CheckpointError(message, TOKENIZER_FILE)
    files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).exists()}
    for name, edit in EDITS.items():
        if name in files or name == TOKENIZER_CONFIG:
            files[name] = _edited(files.get(name, b"{}"), edit, mask)
    _check(files[TOKENIZER_FILE].decode(), mask)

    def write(target: Path) -> None:
        for name, content in files.items():
            (target / name).write_bytes(content)

    return write


def _edited(file: bytes, edit: Edit, mask: MaskToken) -> bytes:
    """The file as it was, byte for byte, where the mask token is in it already."""
    before = json.loads(file)
    after = edit(before, mask)
    return file if before == after else json.dumps(after, indent=2, ensure_ascii=False).encode() + b"\n"


def _tokenizer(content: Json, mask: MaskToken) -> Json:
    token = {"id": mask.id, **_token(mask)}
    return content | {"added_tokens": [*content.get("added_tokens", ()), token]} if mask.is_new else content


def _tokenizer_config(content: Json, mask: MaskToken) -> Json:
    decoder = "added_tokens_decoder"
    listed = {decoder: content[decoder] | {str(mask.id): _token(mask)}} if mask.is_new and decoder in content else {}
    return content | listed | {"mask_token": mask.text}


def _role(content: Json, mask: MaskToken) -> Json:
    return content | {"mask_token": mask.text}


def _id(content: Json, mask: MaskToken) -> Json:
    return content | {mask.text: mask.id} if mask.is_new else content


EDITS: Mapping[str, Edit] = {
    TOKENIZER_FILE: _tokenizer,
    TOKENIZER_CONFIG: _tokenizer_config,
    "special_tokens_map.json": _role,
    "added_tokens.json": _id,
}


def _check(tokenizer_json: str, mask: MaskToken) -> None:
    """The library numbers added tokens itself: what it makes of the file decides."""
    found = Tokenizer.from_str(tokenizer_json).token_to_id(mask.text)
    if found != mask.id:
        message = f"{TOKENIZER_FILE}: the mask token {mask.text!r} should have the id {mask.id}, it gets {found}"
        remedy = "add it to the tokenizer by hand and set mask_token_id in config.json"
        raise CheckpointError(f"{message}; {remedy}", TOKENIZER_FILE)


def _token(mask: MaskToken) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": mask.text, **flags, "special": True}
