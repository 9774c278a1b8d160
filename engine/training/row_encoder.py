"""Rows of the user's data as training samples: plain texts, prompts with answers, conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.errors import InvalidRequestError
from engine.fast_tokenizer import AnsweredTurns, FastTokenizer
from engine.training.data import EncodedSample
from engine.training.jsonl import BadRowError

Phase = Literal["cpt", "sft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowEncoder:
    """Turns ``{"text"}``, ``{"prompt", "answer"}`` and ``{"messages": [...]}`` into samples.

    In the phase "cpt" (continued pre-training) every row counts, whole; texts are cut into pieces of ``max_tokens``. In
    "sft" (fine-tuning) rows with an answer count; plain texts are bad rows unless they are for another phase
    (``leave_texts``). Text and answer end with one of ``stop_ids``, with ``end`` where the chat template writes none.
    """

    tokenizer: FastTokenizer
    phase: Phase
    max_tokens: int
    end: int
    stop_ids: frozenset[int]
    leave_texts: bool = False

    def __call__(self, row: Mapping[str, object]) -> list[EncodedSample]:
        try:
            if "text" in row:
                return self._text(row)
            sample = self._answered(row)
        except InvalidRequestError as error:
            raise BadRowError(str(error)) from error
        if self.phase == "cpt":
            return self._pieces(sample.prompt + sample.answer)
        num_tokens = len(sample.prompt) + len(sample.answer)
        if num_tokens > self.max_tokens:
            raise BadRowError(f"{num_tokens} tokens, more than the {self.max_tokens} of a sequence")
        return [sample]

    def _text(self, row: Mapping[str, object]) -> list[EncodedSample]:
        token_ids = self.tokenizer.encode(_string(row, "text"))
        if not token_ids:
            raise BadRowError("text is empty")
        if self.phase == "cpt":
            return self._pieces([*token_ids, self.end])
        if self.leave_texts:
            return []
        raise BadRowError("a text without prompt and answer, which only the stage cpt trains on")

    def _answered(self, row: Mapping[str, object]) -> EncodedSample:
        messages = row.get("messages")
        if messages is None:
            prompt, answer = _string(row, "prompt"), _string(row, "answer")
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
            raise BadRowError("messages must be a list of objects with role and content")
        answer = _string(messages[-1], "content")
        if not answer.strip():
            raise BadRowError("the answer is empty")
        turns = self._turns(row, messages)
        return EncodedSample(turns.prompt, self._ended(turns.answer))

    def _turns(self, row: Mapping[str, object], messages: list[Mapping[str, object]]) -> AnsweredTurns:
        if self.tokenizer.has_chat_template:
            return self.tokenizer.encode_answered(messages)
        if "messages" in row:
            raise BadRowError("messages need a chat template, and this checkpoint has none")
        prompt, answer = (self.tokenizer.encode(_string(row, name)) for name in ("prompt", "answer"))
        return AnsweredTurns(prompt, answer)

    def _ended(self, answer: list[int]) -> list[int]:
        """Up to its last stop id; templates write a line break behind it."""
        last = next((index for index in reversed(range(len(answer))) if answer[index] in self.stop_ids), None)
        return [*answer, self.end] if last is None else answer[: last + 1]

    def _pieces(self, token_ids: list[int]) -> list[EncodedSample]:
        starts = range(0, len(token_ids), self.max_tokens)
        return [EncodedSample([], token_ids[start : start + self.max_tokens]) for start in starts]


def _string(row: Mapping[str, object], name: str) -> str:
    value = row.get(name)
    if value is None:
        raise BadRowError(f"{name} is missing")
    if not isinstance(value, str):
        raise BadRowError(f"{name} must be a string, found {type(value).__name__}")
    return value
