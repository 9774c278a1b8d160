"""Rows of similar length, padded into batches of a constant number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.training.noise import PADDING_BLOCK, Row, attention_mask

ROW_LENGTHS = (48, 64, 80, 96, 128, 192, 256)


@dataclass(frozen=True, slots=True)
class Batch:
    """R rows of N tokens. ``indices_M`` are the flat places (into R * N) that carry loss, ``normaliser`` what their
    weighted sum is divided by."""

    tokens_RN: Tensor
    positions_RN: Tensor
    mask_R1NN: Tensor
    indices_M: Tensor
    targets_M: Tensor
    weights_M: Tensor
    normaliser: float


def collate(rows: Sequence[Row], length: int, padding_id: int) -> Batch:
    """Pad every row to ``length`` tokens."""
    tokens = np.full((len(rows), length), padding_id)
    positions = np.zeros((len(rows), length), dtype=np.int64)
    blocks = np.full((len(rows), length), PADDING_BLOCK)
    noised = np.zeros((len(rows), length), dtype=np.bool_)
    targets = np.zeros((len(rows), length), dtype=np.int64)
    weights = np.zeros((len(rows), length), dtype=np.float32)
    samples = np.zeros((len(rows), length), dtype=np.int64)
    for index, row in enumerate(rows):
        used = (index, slice(0, len(row)))
        tokens[used], positions[used], blocks[used] = row.tokens, row.positions, row.blocks
        noised[used], targets[used], weights[used] = row.noised, row.targets, row.weights
        if row.samples is not None:
            samples[used] = row.samples
    indices = np.flatnonzero(weights)
    return Batch(
        tokens_RN=torch.from_numpy(tokens),
        positions_RN=torch.from_numpy(positions),
        mask_R1NN=attention_mask(
            torch.from_numpy(blocks), torch.from_numpy(noised), torch.from_numpy(samples) if samples.any() else None
        ),
        indices_M=torch.from_numpy(indices),
        targets_M=torch.from_numpy(targets.reshape(-1)[indices]),
        weights_M=torch.from_numpy(weights.reshape(-1)[indices]),
        normaliser=sum(float(row.weights.sum()) if row.normaliser is None else row.normaliser for row in rows),
    )


class Batcher:
    """Collects rows by length and gives a batch as soon as one is full. Rows beyond the longest length are dropped and
    counted."""

    def __init__(self, tokens_per_batch: int, padding_id: int, row_lengths: Sequence[int] = ROW_LENGTHS) -> None:
        self._tokens_per_batch = tokens_per_batch
        self._padding_id = padding_id
        self._waiting: dict[int, list[Row]] = {length: [] for length in sorted(row_lengths)}
        self.num_dropped = 0

    def add(self, row: Row) -> Iterator[Batch]:
        """Take one row; yield a batch if it filled one."""
        length = next((length for length in self._waiting if len(row) <= length), None)
        if length is None:
            self.num_dropped += 1
            return
        waiting = self._waiting[length]
        waiting.append(row)
        if len(waiting) == max(1, self._tokens_per_batch // length):
            self._waiting[length] = []
            yield collate(waiting, length, self._padding_id)
