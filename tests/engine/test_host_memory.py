"""What is freed is used again."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
import torch
from engine.host_memory import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        kept = [torch.ones(2**20), torch.ones(2**21)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

untold = new_pages()
print(keep_freed_memory())
new_pages()
print(untold, new_pages())
"""


def test_tensors_of_megabytes_touch_no_new_pages_once_memory_is_kept() -> None:
    told, counts = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert told == "True", "the project's machines have glibc"
    untold, kept = map(int, counts.split())
    assert untold > 3000, "the first tensors alone are 3072 pages"
    assert kept < 100
