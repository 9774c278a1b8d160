"""Rows of similar length, padded into batches of a constant number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.training.block_diffusion import pack
from engine.training.noise import PADDING_BLOCK, Row, attention_mask

ROW_LENGTHS = (48, 64, 80, 96, 128, 192, 256)


@dataclass(frozen=True, slots=True)
class Batch:
    """R rows of N tokens. Which token sees which follows from the number of its block, whether it is noised and, in
    packed rows (else None), the number of its sample. ``indices_M`` are the flat places (into R * N) that carry loss,
    ``normaliser`` what their weighted sum is divided by."""

    tokens_RN: Tensor
    positions_RN: Tensor
    blocks_RN: Tensor
    noised_RN: Tensor
    samples_RN: Tensor | None
    indices_M: Tensor
    targets_M: Tensor
    weights_M: Tensor
    normaliser: float

    @property
    def mask_R1NN(self) -> Tensor:
        """The mask written out; its memory grows with the square of N."""
        return attention_mask(self.blocks_RN, self.noised_RN, self.samples_RN)

    @property
    def real_T(self) -> Tensor:
        """Which of the R * N tokens are not padding."""
        return (self.blocks_RN != PADDING_BLOCK).flatten()

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: held.to(device) for name, held in values.items() if isinstance(held, Tensor)}
        return replace(self, **moved)

    @property
    def routed_T(self) -> Tensor:
        """The tokens among which experts are balanced: the noised ones of rows that have any (they are what the network
        decodes), all real ones of other rows."""
        real_RN = self.blocks_RN != PADDING_BLOCK
        return torch.where(self.noised_RN.any(1, keepdim=True), self.noised_RN & real_RN, real_RN).flatten()


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
        blocks_RN=torch.from_numpy(blocks),
        noised_RN=torch.from_numpy(noised),
        samples_RN=torch.from_numpy(samples) if any(row.samples is not None for row in rows) else None,
        indices_M=torch.from_numpy(indices),
        targets_M=torch.from_numpy(targets.reshape(-1)[indices]),
        weights_M=torch.from_numpy(weights.reshape(-1)[indices]),
        normaliser=sum(row.loss_normaliser for row in rows),
    )


class Batcher:
    """Collects rows by length and gives a batch as soon as one is full. Rows beyond the longest length are dropped and
    counted.

    A batch has ``tokens_per_batch // length`` rows of a length. ``packed`` rows share them with others as long as there
    is room (first fit).
    """

    def __init__(
        self,
        tokens_per_batch: int,
        padding_id: int,
        row_lengths: Sequence[int] = ROW_LENGTHS,
        *,
        packed: bool = False,
    ) -> None:
        self._tokens_per_batch = tokens_per_batch
        self._padding_id = padding_id
        self._waiting: dict[int, list[Row]] = {length: [] for length in sorted(row_lengths)}
        self._packed = packed
        self.num_dropped = 0

    @property
    def waiting(self) -> list[Row]:
        """Rows that are in no batch yet; adding them to an empty Batcher in this order makes it wait as this one."""
        return [row for rows in self._waiting.values() for row in rows]

    def add(self, row: Row) -> Iterator[Batch]:
        """Take one row; yield a batch if it filled one."""
        length = next((length for length in self._waiting if len(row) <= length), None)
        if length is None:
            self.num_dropped += 1
        elif self._packed:
            yield from self._pack(row, length)
        else:
            waiting = self._waiting[length]
            waiting.append(row)
            if len(waiting) == self._num_rows(length):
                self._waiting[length] = []
                yield collate(waiting, length, self._padding_id)

    def _pack(self, row: Row, length: int) -> Iterator[Batch]:
        """A batch is full when the next row fits nowhere; that row then waits for others."""
        waiting = self._waiting[length]
        if len(first_fit([*map(len, waiting), len(row)], length)) > self._num_rows(length):
            self._waiting[length] = [row]
            shares = first_fit([len(each) for each in waiting], length)
            yield collate([pack([waiting[index] for index in share]) for share in shares], length, self._padding_id)
        else:
            waiting.append(row)

    def _num_rows(self, length: int) -> int:
        return max(1, self._tokens_per_batch // length)


def first_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Which sizes share a bin: each goes into the first that has room for it, in their order."""
    bins: list[list[int]] = []
    free: list[int] = []
    for index, size in enumerate(sizes):
        place = next((place for place, room in enumerate(free) if size <= room), None)
        if place is None:
            bins.append([])
            free.append(capacity)
            place = len(bins) - 1
        bins[place].append(index)
        free[place] -= size
    return bins
