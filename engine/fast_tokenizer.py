"""Tokenizers of the ``tokenizers`` library, made so that a user's text cannot contain special tokens.

Prompts go through a copy of the tokenizer that does not recognise special tokens. In chat messages their text is
replaced by numbered guards before the template is rendered; only what the template itself wrote becomes their ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import TemplateError
from tokenizers import Tokenizer as Backend

from engine.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from engine.errors import InvalidRequestError
from engine.tokenizer import ROLES, Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BLANKS, NEVER = r"\s*", r"(?!)"
GUARD_OPEN, GUARD_CLOSE = "\ue000", "\ue001"
"""Private-use characters around the number of a piece of text that is kept out of a chat template."""


class AnsweredTurns(NamedTuple):
    """A conversation up to where the assistant's last answer begins, and that answer with what the template writes
    behind it."""

    prompt: list[int]
    answer: list[int]


class FastTokenizer(Tokenizer):
    """Over a tokenizer of the ``tokenizers`` library, with the chat template that transformers found beside it."""

    def __init__(self, loaded: PreTrainedTokenizerFast, control_ids: frozenset[int] = frozenset()) -> None:
        self._loaded = loaded
        self._control_ids = control_ids
        description = json.loads(loaded.backend_tokenizer.to_str())
        added = {token["id"]: token for token in description["added_tokens"]}
        marked = {token_id for token_id, token in added.items() if token["special"]}
        self.special_ids = frozenset(marked | control_ids | set(loaded.all_special_ids))
        self._specials = [added[token_id] for token_id in sorted(self.special_ids & added.keys())]
        self._added_text = {token_id: str(token["content"]) for token_id, token in added.items()}
        self._backend = _plain_backend(description, self.special_ids)
        self._special_pattern = _special_pattern(self._specials)
        self._guard_pattern = _guard_pattern(self._specials)
        self._byte_level = (description["decoder"] or {}).get("type") == "ByteLevel"
        self._bytes: dict[int, bytes] = {}
        self.vocab_size = self._backend.get_vocab_size(with_added_tokens=True)
        self.has_chat_template = bool(loaded.chat_template)

    def encode(self, text: str) -> list[int]:
        _check_unicode(text, "prompt")
        token_ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        for token_id in self._control_ids.intersection(token_ids):
            raise InvalidRequestError(f"the text encodes to the control token {self.token_text(token_id)!r}", "prompt")
        return token_ids

    def apply_chat_template(self, messages: Sequence[Mapping[str, object]]) -> list[int]:
        if not self.has_chat_template:
            message = "this model has no chat template; send a plain prompt to the completions endpoint instead"
            raise InvalidRequestError(message, "messages")
        guards: list[str] = []
        turns = self._guarded(messages, guards)
        return list(self._encode_rendered(self._render(turns, answer_follows=True), guards))

    def encode_answered(self, messages: Sequence[Mapping[str, object]]) -> AnsweredTurns:
        """Ids of a conversation whose last message is the assistant's. InvalidRequestError where it is not, and where
        the template does not write the answer behind what asks for it."""
        guards: list[str] = []
        turns = self._guarded(messages, guards)
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise InvalidRequestError("the last message must be the assistant's, behind at least one other", "messages")
        asked = self._render(turns[:-1], answer_follows=True)
        whole = self._render(turns, answer_follows=False)
        if not whole.startswith(asked):
            raise InvalidRequestError("the chat template does not write an answer behind what asks for it", "messages")
        answer = whole.removeprefix(asked)
        return AnsweredTurns(list(self._encode_rendered(asked, guards)), list(self._encode_rendered(answer, guards)))

    def detokenizer(self, *, skip_special_tokens: bool = True) -> Detokenizer:
        if self._byte_level:
            skipped: frozenset[int] = self.special_ids if skip_special_tokens else frozenset()
            return ByteDetokenizer(lambda token_id: b"" if token_id in skipped else self._token_bytes(token_id))
        return WindowDetokenizer(partial(self._backend_decode, skip_special_tokens))

    def token_text(self, token_id: int) -> str:
        if token_id in self._added_text or not self._byte_level:
            return self._added_text.get(token_id) or self._backend_decode(False, [token_id])
        return self._token_bytes(token_id).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return self._token_bytes(token_id) if self._byte_level else super().token_bytes(token_id)

    def _guarded(self, messages: Sequence[Mapping[str, object]], guards: list[str]) -> list[dict[str, str]]:
        turns = [self._guarded_turn(index, message, guards) for index, message in enumerate(messages)]
        if not turns:
            raise InvalidRequestError("messages must hold at least one message", "messages")
        return turns

    def _render(self, turns: list[dict[str, str]], *, answer_follows: bool) -> str:
        try:
            return str(self._loaded.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_follows))
        except TemplateError as error:
            raise InvalidRequestError(f"the chat template refuses the messages: {error}", "messages") from error

    def _guarded_turn(self, index: int, message: Mapping[str, object], guards: list[str]) -> dict[str, str]:
        """The message with special tokens' text, and the guards' own characters, replaced by numbered guards."""
        where = f"messages[{index}]"
        unknown = sorted(key for key, value in message.items() if value is not None and key not in ("role", "content"))
        if unknown:
            raise InvalidRequestError(f"{where}.{unknown[0]} is not supported; a message has role and content", where)
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in ROLES:
            raise InvalidRequestError(f"{where}.role must be one of {', '.join(ROLES)}; got {role!r}", f"{where}.role")
        if not isinstance(content, str):
            raise InvalidRequestError(f"{where}.content must be a string", f"{where}.content")
        _check_unicode(content, f"{where}.content")

        def guard(match: re.Match[str]) -> str:
            guards.append(match.group())
            return f"{GUARD_OPEN}{len(guards) - 1}{GUARD_CLOSE}"

        return {"role": ROLES[role], "content": self._guard_pattern.sub(guard, content)}

    def _encode_rendered(self, text: str, guards: list[str]) -> Iterator[int]:
        """What the template wrote as special tokens becomes their ids, all between them is plain text."""
        start = 0
        for match in self._special_pattern.finditer(text):
            yield from self.encode(_unguard(text[start : match.start()], guards))
            yield int(str(match.lastgroup).removeprefix("id"))
            start = match.end()
        yield from self.encode(_unguard(text[start:], guards))

    def _token_bytes(self, token_id: int) -> bytes:
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._make_token_bytes(token_id)
        return known

    def _make_token_bytes(self, token_id: int) -> bytes:
        if token_id in self._added_text:
            return self._added_text[token_id].encode()
        token = self._backend.id_to_token(token_id) or ""
        alphabet = _byte_alphabet()
        if all(character in alphabet for character in token):
            return bytes(alphabet[character] for character in token)
        return token.encode()

    def _backend_decode(self, skip_special_tokens: bool, token_ids: Sequence[int]) -> str:
        return str(self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens))


def _check_unicode(text: str, param: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"{param} is not valid Unicode: {error.reason} at character {error.start}"
        raise InvalidRequestError(message, param) from error


def _plain_backend(description: dict[str, Any], special_ids: frozenset[int]) -> Backend:
    """A copy in which special tokens' text is split like any other text."""
    for token in description["added_tokens"]:
        token["special"] = token["id"] in special_ids
    backend = Backend.from_str(json.dumps(description))
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    return backend


def _special_pattern(specials: Sequence[Mapping[str, Any]]) -> re.Pattern[str]:
    """Finds special tokens in a rendered template; the group's name holds the id. Longer names win, and a token may
    swallow the blanks beside it."""
    alternatives = [
        rf"{token['lstrip'] * BLANKS}(?P<id{token['id']}>{re.escape(token['content'])}){token['rstrip'] * BLANKS}"
        for token in sorted(specials, key=lambda token: -len(token["content"]))
    ]
    return re.compile("|".join(alternatives) or NEVER)


def _guard_pattern(specials: Sequence[Mapping[str, Any]]) -> re.Pattern[str]:
    texts = sorted((str(token["content"]) for token in specials), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, [*texts, GUARD_OPEN])))


def _unguard(text: str, guards: Sequence[str]) -> str:
    return re.sub(f"{GUARD_OPEN}(\\d+){GUARD_CLOSE}", lambda match: guards[int(match.group(1))], text)


@lru_cache(maxsize=1)
def _byte_alphabet() -> Mapping[str, int]:
    """The byte of each character of a byte-level vocabulary: printable Latin-1 characters stand for themselves, the
    other bytes for the characters from U+0100 on (GPT-2's encoder)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
