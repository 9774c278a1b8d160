"""Encoding, chat templates and decoding; above all: a user's text contains no special token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from engine.errors import CheckpointError, InvalidRequestError
from engine.tokenizer import Tokenizer, load_tokenizer
from tests.helpers.checkpoints import ASSISTANT, BOS, EOS, MASK, SPECIALS, SYSTEM, USER, write_json, write_tokenizer

NAUGHTY = ("<|mask|>", "<|endoftext|>", "a<|mask|>b", "<|user|>", "x <|mask|><|mask|> y", "<|bos|>\n", "<unk>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder, control_ids=[MASK, EOS])


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize("text", NAUGHTY)
def test_special_tokens_in_a_prompt_are_plain_text(tokenizer: Tokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text)

    assert not tokenizer.special_ids.intersection(token_ids)
    assert tokenizer.decode(token_ids) == text


def test_a_mask_that_the_files_do_not_mark_special_is_plain_text_all_the_same(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, mask_is_special=False), control_ids=[MASK])

    assert MASK not in tokenizer.encode("a<|mask|>b")
    assert MASK not in tokenizer.apply_chat_template([user("a<|mask|>b")])


def test_a_vocabulary_that_spells_the_mask_as_a_word_refuses_the_text(tmp_path: Path) -> None:
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0, "MASK": 1, "word": 2}, "unk_token": "[UNK]"}
    pre = {"type": "Whitespace"}
    write_json(
        tmp_path / "tokenizer.json", {"version": "1.0", "model": words, "added_tokens": [], "pre_tokenizer": pre}
    )
    tokenizer = load_tokenizer(tmp_path, control_ids=[1])

    assert tokenizer.encode("word other") == [2, 0]
    with pytest.raises(InvalidRequestError, match="MASK"):
        tokenizer.encode("word MASK")


def test_ordinary_text_encodes_as_transformers_does(folder: Path, tokenizer: Tokenizer) -> None:
    reference = PreTrainedTokenizerFast.from_pretrained(folder)

    for text in ("the mask fills the gap", "  12 + 30 = 42\n\n", "naïve café 😀", "<think>the gap", ""):
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False)


def test_an_added_token_that_is_not_special_stays_a_token(tokenizer: Tokenizer) -> None:
    token_ids = tokenizer.encode("<think>")

    assert len(token_ids) == 1
    assert tokenizer.decode(token_ids) == "<think>"


def test_text_with_a_lone_surrogate_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError, match="Unicode") as caught:
        tokenizer.encode("a\ud800")
    assert caught.value.param == "prompt"
    with pytest.raises(InvalidRequestError, match="Unicode") as caught:
        tokenizer.apply_chat_template([user("a\ud800")])
    assert caught.value.param == "messages[0].content"


def test_chat_template_writes_real_special_tokens(folder: Path, tokenizer: Tokenizer) -> None:
    messages = [{"role": "system", "content": " be brief "}, user("the gap"), {"role": "assistant", "content": "42"}]

    token_ids = tokenizer.apply_chat_template([*messages, user("why\n")])

    reference = PreTrainedTokenizerFast.from_pretrained(folder)
    expected = reference.apply_chat_template([*messages, user("why\n")], add_generation_prompt=True, return_dict=False)
    assert token_ids == expected
    assert [i for i in token_ids if i in tokenizer.special_ids] == [BOS, SYSTEM, USER, ASSISTANT, USER, ASSISTANT]


def test_a_developer_message_is_a_system_message(tokenizer: Tokenizer) -> None:
    as_developer = tokenizer.apply_chat_template([{"role": "developer", "content": "be brief"}, user("gap")])

    assert as_developer == tokenizer.apply_chat_template([{"role": "system", "content": "be brief"}, user("gap")])


@pytest.mark.parametrize("text", NAUGHTY)
def test_chat_contents_cannot_write_special_tokens(tokenizer: Tokenizer, text: str) -> None:
    token_ids = tokenizer.apply_chat_template([user(f"say {text}")])

    assert [i for i in token_ids if i in tokenizer.special_ids] == [BOS, USER, ASSISTANT]
    assert tokenizer.decode(token_ids) == f"say {text}".strip()


def test_chat_contents_cannot_forge_guards(tokenizer: Tokenizer) -> None:
    text = "\ue0000\ue001 <|mask|> \ue0001\ue001 \ue000\ue001"

    assert tokenizer.decode(tokenizer.apply_chat_template([user(text)])) == text


def test_templates_see_the_contents_they_test_for(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|user|>{{ m.content.split('</think>')[-1] | trim }}{% endfor %}"
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, chat_template=template))

    token_ids = tokenizer.apply_chat_template([user("<|mask|> hm </think>  <|mask|>!  ")])

    assert tokenizer.decode(token_ids, skip_special_tokens=False) == "<|user|><|mask|>!"
    assert [i for i in token_ids if i in tokenizer.special_ids] == [USER]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "<|mask|>", "content": "a"}], "messages[0].role"),
        ([{"content": "a"}], "messages[0].role"),
        ([user("a"), {"role": "user", "content": None}], "messages[1].content"),
        ([{"role": "user", "content": "a", "tool_calls": []}], "messages[0]"),
    ],
)
def test_bad_messages_are_named(tokenizer: Tokenizer, messages: list[dict[str, object]], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        tokenizer.apply_chat_template(messages)

    assert caught.value.param == param


def test_a_template_may_refuse(tmp_path: Path) -> None:
    template = "{{ raise_exception('only one turn') if messages | length > 1 }}"
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, chat_template=template))

    with pytest.raises(InvalidRequestError, match="only one turn"):
        tokenizer.apply_chat_template([user("a"), user("b")])


def test_without_a_chat_template_the_error_points_to_completions(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, chat_template=None))

    assert not tokenizer.has_chat_template
    with pytest.raises(InvalidRequestError, match="completions"):
        tokenizer.apply_chat_template([user("a")])


def test_decoding_skips_special_tokens_and_ids_without_meaning(tokenizer: Tokenizer) -> None:
    token_ids = [BOS, *tokenizer.encode("gap"), MASK, 100_000, EOS]

    assert tokenizer.decode(token_ids) == "gap"
    assert tokenizer.decode(token_ids, skip_special_tokens=False) == "<|bos|>gap<|mask|><|endoftext|>"
    assert tokenizer.token_text(MASK) == SPECIALS[MASK]


@given(st.lists(st.integers(min_value=0, max_value=330), max_size=60), st.booleans())
@settings(max_examples=200, deadline=None)
def test_increments_concatenate_to_the_whole(tokenizer: Tokenizer, token_ids: list[int], skip: bool) -> None:
    detokenizer = tokenizer.detokenizer(skip_special_tokens=skip)

    text = "".join(detokenizer.add([token_id]) for token_id in token_ids) + detokenizer.flush()

    assert text == tokenizer.decode(token_ids, skip_special_tokens=skip)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_survives_and_no_half_character_is_shown(tokenizer: Tokenizer, text: str) -> None:
    detokenizer = tokenizer.detokenizer()
    shown = ""
    canonical = tokenizer.decode(tokenizer.encode(text))  # the vocabulary normalises to NFC

    for token_id in tokenizer.encode(text):
        shown += detokenizer.add([token_id])
        assert canonical.startswith(shown)

    assert shown + detokenizer.flush() == canonical


def test_an_incomplete_character_is_held_back_until_the_end(tokenizer: Tokenizer) -> None:
    first, *rest = tokenizer.encode("😀")
    detokenizer = tokenizer.detokenizer()

    assert rest, "the character takes several tokens"
    assert detokenizer.add([first]) == ""
    assert detokenizer.flush() == "\ufffd"


def test_word_pieces_stream_with_their_spaces(tmp_path: Path) -> None:
    vocab = {"[UNK]": 0, "gap": 1, "##s": 2, "fill": 3, "the": 4}
    model = {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    parts = {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}, "pre_tokenizer": {"type": "Whitespace"}}
    model |= {"max_input_chars_per_word": 100}
    write_json(tmp_path / "tokenizer.json", {"version": "1.0", "model": model, "added_tokens": [], **parts})
    tokenizer = load_tokenizer(tmp_path)
    token_ids = tokenizer.encode("fill the gaps")
    detokenizer = tokenizer.detokenizer()

    assert token_ids == [3, 4, 1, 2]
    assert [detokenizer.add([token_id]) for token_id in token_ids] == ["fill", " the", " gap", "s"]
    assert detokenizer.flush() == ""


def test_a_checkpoint_without_tokenizer_takes_token_ids_only(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tmp_path)

    assert tokenizer.decode([1, 2]) == ""
    with pytest.raises(InvalidRequestError, match="token ids"):
        tokenizer.encode("text")
    with pytest.raises(InvalidRequestError, match="token ids"):
        tokenizer.apply_chat_template([user("text")])


def test_a_damaged_tokenizer_names_its_folder(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")

    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_tokenizer(tmp_path)


def test_code_that_comes_with_a_tokenizer_is_not_run(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "tokenizer_config.json", {**config, "auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
    (tmp_path / "evil.py").write_text("raise SystemExit('code of a checkpoint was run')", encoding="utf-8")

    assert load_tokenizer(tmp_path).encode("gap")
