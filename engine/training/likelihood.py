"""How likely a network finds held-out answers, by the share of each block that is masked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.models.spec import DiffusionLM
from engine.training.batches import Batch, collate, first_fit
from engine.training.block_diffusion import BlockDiffusion, lay_out, pack
from engine.training.data import EncodedSample
from engine.training.jsonl import BadRowError, Encode, JsonlFile
from engine.training.network import batch_loss, device_of
from engine.training.noise import Row

MASK_RATIOS = (0.25, 0.5, 0.75, 1.0)
MAX_SAMPLES = 256


def read_samples(path: Path, encode: Encode, limit: int = MAX_SAMPLES) -> list[EncodedSample]:
    """The first samples of a file; ConfigError with the first reason where no row is usable."""
    file = JsonlFile(path)
    reasons: list[str] = []

    def samples() -> Iterator[EncodedSample]:
        for index in range(len(file)):
            try:
                yield from encode(file.read(index))
            except BadRowError as error:
                reasons.append(f"{path}:{file.numbers[index]}: {error}")

    found = list(islice(samples(), limit))
    if not found:
        raise ConfigError(
            f"{path} has no usable row: {reasons[0] if reasons else 'none suits the stage'}", "validation"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Held-out samples under the same masks each time; rows are packed to ``row_length``."""

    model: DiffusionLM
    samples: Sequence[EncodedSample]
    objective: BlockDiffusion
    mask: int
    end: int
    row_length: int

    @torch.no_grad()
    def __call__(self) -> Mapping[str, float]:
        """Geometric mean of the probability of a masked token, 1 at best; its negative logarithm is the mean cross
        entropy. With all of a block masked, in blocks of 1, it is what an autoregressive network would tell."""
        return {f"likelihood {ratio:.0%} masked": math.exp(-self._cross_entropy(ratio)) for ratio in MASK_RATIOS}

    def _cross_entropy(self, ratio: float) -> float:
        total, masked = 0.0, 0.0
        device = device_of(self.model)
        for batch in self._batches(ratio):
            total += batch_loss(self.model, batch.to(device), bfloat16=False).item() * batch.normaliser
            masked += batch.normaliser
        return total / masked

    def _batches(self, ratio: float) -> Iterator[Batch]:
        rng = np.random.default_rng(0)
        rows = [self._row(sample, ratio, rng) for sample in self.samples]
        for share in first_fit([len(row) for row in rows], self.row_length):
            yield collate([pack([rows[index] for index in share])], self.row_length, self.end)

    def _row(self, sample: EncodedSample, ratio: float, rng: np.random.Generator) -> Row:
        tokens, trained = self.objective.whole_blocks(sample, self.end)
        masked = exact_masks(trained, ratio, self.objective.block_length, rng)
        return lay_out(tokens, masked, 1.0, int(masked.sum()), self.objective.block_length, self.mask)


def exact_masks(
    trained: NDArray[np.bool_], ratio: float, block_length: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """This share of the trained places of each block, rounded up."""
    trained_KB = trained.reshape(-1, block_length)
    keys_KB = np.where(trained_KB, rng.random(trained_KB.shape), 2.0)
    ranks_KB = keys_KB.argsort(axis=1).argsort(axis=1)
    counts_K = np.ceil(ratio * trained_KB.sum(axis=1))
    masked_KB: NDArray[np.bool_] = trained_KB & (ranks_KB < counts_K[:, None])
    return masked_KB.reshape(-1)
