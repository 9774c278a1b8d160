"""OpenAI's logprobs objects.

The number is the natural logarithm of the probability that the token had in the model's own distribution at the
denoising step that committed it: given what was on the canvas then, not given the tokens to its left. Tokens of one
step are drawn independently of each other, so the numbers of a text add up to the probability of its decisions, not to
the text's likelihood under a left-to-right model. Tokens of a prompt were given, not decided, and have none; neither
has a token that an editing decoder moved: their number is null.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRun:
    """Tokens of a choice with the bytes of their texts; ``logprobs`` is None for the tokens of a prompt."""

    token_bytes: Sequence[bytes]
    logprobs: Sequence[float] | None


@dataclass(slots=True)
class CompletionLogprobs:
    """Owns where the next token of a choice's text begins. ``num_top`` 1 repeats each token as its own alternative:
    at temperature 0 it is the most probable admissible one."""

    num_top: int
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )
    _offset: int = 0

    def add(self, runs: Sequence[TokenRun]) -> dict[str, object]:
        """The object of /v1/completions for the next tokens of the choice."""
        tokens: list[str] = []
        numbers: list[float | None] = []
        offsets: list[int] = []
        for run in runs:
            tokens += map(token_text, run.token_bytes)
            numbers += [None] * len(run.token_bytes) if run.logprobs is None else map(known, run.logprobs)
            for token in run.token_bytes:
                offsets.append(self._offset)
                self._offset += len(self._decoder.decode(token))
        top = [None if number is None else {token: number} for token, number in zip(tokens, numbers, strict=True)]
        return {
            "tokens": tokens,
            "token_logprobs": numbers,
            "top_logprobs": top if self.num_top else None,
            "text_offset": offsets,
        }


def chat_logprobs(token_bytes: Sequence[bytes], logprobs: Sequence[float], num_top: int) -> dict[str, object]:
    """The object of /v1/chat/completions."""
    entries = [
        {"token": token_text(token), "logprob": known(logprob), "bytes": list(token)}
        for token, logprob in zip(token_bytes, logprobs, strict=True)
    ]
    return {
        "content": [entry | {"top_logprobs": [entry] if num_top else []} for entry in entries],
        "refusal": None,
    }


def known(number: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(number) else number


def token_text(token: bytes) -> str:
    """A token for display: part of a character is U+FFFD."""
    return token.decode("utf-8", errors="replace")
