"""The mask token of a tokenizer that has none, or has one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from engine.errors import CheckpointError
from engine.models.json_fields import JsonFields
from engine.models.special_tokens import read_special_tokens
from engine.training.conversion import convert
from engine.training.mask_token import MaskToken, choose_mask_token, tokenizer_writer, vocabulary_with
from tests.engine.training.qwen3 import USED_IDS, save_qwen3, save_tokenizer

NEW = MaskToken(USED_IDS, "<|MASK|>", is_new=True)


def chosen(folder: Path, **config: object) -> MaskToken:
    return choose_mask_token(JsonFields("config.json", config), read_special_tokens(folder))


def test_a_new_token_gets_the_first_id_behind_all_others(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    assert chosen(tmp_path) == NEW


def test_a_token_that_any_file_names_is_used(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    assert chosen(tmp_path, mask_token_id=257) == MaskToken(257, "<|im_start|>", is_new=False)
    (tmp_path / "other").mkdir()
    tokenizer_writer(tmp_path, NEW)(tmp_path / "other")
    assert chosen(tmp_path / "other") == NEW._replace(is_new=False)


def test_the_written_tokenizer_knows_the_mask_and_reads_all_else_as_before(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    (tmp_path / "added_tokens.json").write_text('{"<|im_end|>": 258}')
    (tmp_path / "other").mkdir()
    tokenizer_writer(tmp_path, NEW)(tmp_path / "other")
    before, after = AutoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path / "other")
    assert (after.mask_token, after.mask_token_id) == ("<|MASK|>", USED_IDS)
    assert after.eos_token == before.eos_token
    messages = [{"role": "user", "content": "Grüße!"}]
    assert after.apply_chat_template(messages, tokenize=False) == before.apply_chat_template(messages, tokenize=False)
    assert after("Grüße <|im_end|>")["input_ids"] == before("Grüße <|im_end|>")["input_ids"]
    assert json.loads((tmp_path / "other" / "added_tokens.json").read_text()) == {"<|im_end|>": 258, "<|MASK|>": 259}
    assert json.loads((tmp_path / "other" / "special_tokens_map.json").read_text())["mask_token"] == "<|MASK|>"


def test_an_id_that_the_library_would_not_give_is_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match="should have the id 300, it gets 259"):
        tokenizer_writer(tmp_path, MaskToken(300, "<|MASK|>", is_new=True))


def test_the_new_row_is_the_mean_of_the_used_ones(tmp_path: Path) -> None:
    model = convert(save_qwen3(tmp_path), 4).model
    assert model.lm_head is not None
    for weight in (model.embed_tokens.weight, model.lm_head.weight):
        assert weight.shape[0] == 320
        torch.testing.assert_close(weight[USED_IDS], weight[:USED_IDS].mean(0))


def test_a_full_embedding_grows_to_a_multiple_of_64(tmp_path: Path) -> None:
    assert vocabulary_with(NEW, USED_IDS) == 320
    assert vocabulary_with(NEW, USED_IDS + 1) == USED_IDS + 1
    converted = convert(save_qwen3(tmp_path, vocab_size=USED_IDS, tie_word_embeddings=True), 4)
    assert converted.files.config["vocab_size"] == 320
    weight = converted.model.embed_tokens.weight
    assert weight.shape == (320, 32)
    assert weight.requires_grad
    torch.testing.assert_close(weight[USED_IDS:], weight[:USED_IDS].mean(0).expand(61, 32))
    assert "grew from 259 to 320" in converted.notes[1]
