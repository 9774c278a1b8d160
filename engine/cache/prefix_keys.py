"""Names for K/V that requests may have in common: equal names, equal K/V.

K/V of a committed block of a block-causal model depend on the tokens up to its end and on where blocks lie, and on
nothing else. So a block's key is a hash of its tokens and of the key before it; the chain begins with the block length
and a salt, which keeps apart what must not be shared. K/V of a bidirectional model depend on all tokens of the canvas,
masks included, so only a whole canvas has a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from engine.cache.policy import IntArray

KEY_BYTES = 16


def block_keys(
    tokens: Sequence[int], block_length: int, salt: str = "", known: Sequence[bytes] = ()
) -> tuple[bytes, ...]:
    """The keys of all whole blocks of ``tokens``; ``known`` are the first of them."""
    keys = list(known)
    previous = keys[-1] if keys else _digest(f"{block_length}/{salt}".encode())
    data = np.asarray(tokens, np.int64).tobytes()
    width = block_length * np.dtype(np.int64).itemsize
    for start in range(len(keys) * width, len(data) - width + 1, width):
        previous = _digest(previous + data[start : start + width])
        keys.append(previous)
    return tuple(keys)


def canvas_keys(canvas: IntArray, num_pages: int, salt: str = "") -> tuple[bytes, ...]:
    """The keys of the pages that hold the K/V of a whole canvas as its first pass leaves them."""
    name = _digest(_digest(f"canvas/{salt}".encode()) + canvas.astype(np.int64).tobytes())
    return tuple(name + number.to_bytes(4) for number in range(num_pages))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()
