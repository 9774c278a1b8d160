"""Token ids to text, piece by piece: the pieces of a stream concatenate to the text of the whole.

Work is linear in the number of tokens. A character whose bytes are not all there yet is held back.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
LONGEST_CHARACTER = 4
"""Bytes of the longest UTF-8 sequence: a token that is still incomplete after as many others never completes."""


class Detokenizer(ABC):
    """The text of one request as it grows. One instance per request."""

    @abstractmethod
    def add(self, token_ids: Sequence[int]) -> str:
        """The text that these further tokens complete."""

    @abstractmethod
    def flush(self) -> str:
        """What was held back, an incomplete character as U+FFFD. Nothing may be added afterwards."""


class ByteDetokenizer(Detokenizer):
    """For byte-level vocabularies: each token is a run of bytes, whatever its neighbours."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token_ids: Sequence[int]) -> str:
        return self._decoder.decode(b"".join(map(self._token_bytes, token_ids)))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer(Detokenizer):
    """For vocabularies where a token's text depends on the one before it (word pieces, leading spaces).

    Decodes a short window: the last tokens whose text is out, then the pending ones. Text that ends in U+FFFD may
    still be incomplete and waits, for at most ``LONGEST_CHARACTER`` tokens.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._shown: list[int] = []
        self._pending: list[int] = []

    def add(self, token_ids: Sequence[int]) -> str:
        return "".join(self._add_one(token_id) for token_id in token_ids)

    def flush(self) -> str:
        return self._emit()

    def _add_one(self, token_id: int) -> str:
        self._pending.append(token_id)
        if len(self._pending) < LONGEST_CHARACTER and self._decode(self._pending).endswith(REPLACEMENT):
            return ""
        return self._emit()

    def _emit(self) -> str:
        known = self._decode(self._shown)
        text = self._decode(self._shown + self._pending)[len(known) :]
        self._shown, self._pending = self._pending or self._shown, []
        return text


class SilentDetokenizer(Detokenizer):
    """For checkpoints without a tokenizer: ids have no text."""

    def add(self, token_ids: Sequence[int]) -> str:
        return ""

    def flush(self) -> str:
        return ""
