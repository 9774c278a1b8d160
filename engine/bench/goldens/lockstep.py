"""Counting forwards as the references do: all rows of a batch stay in the same block until the slowest is done.

The engine lets every request run at its own pace; from the step at which each position was filled, this computes when
a batch in lock step would have filled it. Plain arithmetic on lists. G generated positions of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class LockStep:
    """``forwards`` of the batch, and per row the 1-based forward that filled each position (-1: none)."""

    forwards: int
    filled_at: list[list[int]]


def block_bounds(start: int, end: int, block_length: int) -> list[tuple[int, int]]:
    """Half-open blocks from ``start`` to ``end``; the last may be short."""
    return [(begin, min(begin + block_length, end)) for begin in range(start, end, block_length)]


def block_steps(revealed_at: Sequence[int], blocks: Sequence[tuple[int, int]], num_forwards: int) -> list[int]:
    """Forwards that a row spent on each block, idle ones at its end included.

    Relies on the first step of every block but the first filling something. Later blocks without a filled position
    took none.
    """
    begins = [min((step for step in revealed_at[a:b] if step > 0), default=num_forwards + 1) for a, b in blocks]
    for index in range(len(begins) - 2, -1, -1):  # an empty block begins where the next one does
        begins[index] = min(begins[index], begins[index + 1])
    begins[0] = 1
    return [after - before for before, after in pairwise([*begins, num_forwards + 1])]


def lock_step(
    revealed_at: Sequence[Sequence[int]], blocks: Sequence[tuple[int, int]], num_forwards: Sequence[int]
) -> LockStep:
    """Align rows that ran alone (``revealed_at`` 1-based, 0 = not filled) into one batch that moves block by block."""
    steps = [block_steps(row, blocks, total) for row, total in zip(revealed_at, num_forwards, strict=True)]
    widths = [max(row[index] for row in steps) for index in range(len(blocks))]
    filled_at = [[-1] * len(row) for row in revealed_at]
    for row, row_steps, out in zip(revealed_at, steps, filled_at, strict=True):
        for index, (begin, end) in enumerate(blocks):
            offset = sum(widths[:index]) - sum(row_steps[:index])
            out[begin:end] = [step + offset if step > 0 else -1 for step in row[begin:end]]
    return LockStep(sum(widths), filled_at)
