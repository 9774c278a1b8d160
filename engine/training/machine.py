"""What this machine can do, for settings left to the trainer."""

from __future__ import annotations

import os
import resource
import shutil
import time

import torch

SIZE = 512
REPEATS = 5


def has_compiler() -> bool:
    """Whether a C++ compiler is installed, which torch.compile needs on a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name)


def bfloat16_is_faster() -> bool:
    """Time a product in both types: bfloat16 wins only where the CPU has matrix instructions for it."""
    return _seconds(torch.bfloat16) < _seconds(torch.float32)


def peak_memory() -> int:
    """Most bytes that this process has held: of CUDA memory where it uses that, else of its own."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(SIZE, SIZE, dtype=dtype)
    torch.mm(matrix, matrix)
    started = time.perf_counter()
    for _ in range(REPEATS):
        torch.mm(matrix, matrix)
    return time.perf_counter() - started
