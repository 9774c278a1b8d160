"""Names for the K/V of committed blocks: equal names, equal K/V.

K/V of a committed block of a block-causal model depend on the tokens up to its end and on where blocks lie, and on
nothing else. So a block's key is a hash of its tokens and of the key before it; the chain begins with the block length
and a salt, which keeps apart what must not be shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

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


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()
