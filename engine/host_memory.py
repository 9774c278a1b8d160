"""Memory of this process that torch frees on a CPU: kept, where the C library can be told so."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""What ``mallopt`` calls them (glibc's malloc.h)."""

LARGEST_KEPT = (2**30, 2**25)
"""Tensors up to that many bytes are made of memory that was used before; older C libraries take the second alone."""


def keep_freed_memory() -> bool:
    """Have freed tensors' memory used again instead of handed back; False where the C library has no such setting.

    A forward makes and frees the same tensors at every step. By default glibc returns what is larger than some hundred
    KiB to the system, so that every step touches new pages, which the kernel first has to find and to clear.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return any(mallopt(MMAP_THRESHOLD, size) for size in LARGEST_KEPT) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
