"""SDAR's own objective: every sample as a noised and a clean copy, blocks counted from its first token.

One mask probability p is drawn per sample, tokens are masked independently with it, and a masked token's cross entropy
weighs 1 / p; the sum is divided by the number of trained tokens, masked or not. Source: SDAR (arXiv 2510.06303),
section 3, after BD3-LM (arXiv 2503.09573).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.training.data import EncodedSample
from engine.training.noise import FloatArray, IntArray, Objective, Row

EPSILON = 1e-3
"""Least mask probability."""
MAX_REDRAWS = 10


@dataclass(frozen=True, slots=True)
class BlockDiffusion(Objective):
    """``stage`` "cpt" (continued pre-training) trains every token, "sft" (fine-tuning) the answer alone. Samples are
    filled up to whole blocks with end-of-text ids, which are trained as well."""

    block_length: int
    stage: Literal["cpt", "sft"] = "sft"

    def row(self, sample: EncodedSample, mask: int, end: int, rng: np.random.Generator) -> Row:
        tokens, trained = self.whole_blocks(sample, end)
        masked, probability = draw_mask(trained, rng)
        return lay_out(tokens, masked, probability, int(trained.sum()), self.block_length, mask)

    def whole_blocks(self, sample: EncodedSample, end: int) -> tuple[IntArray, NDArray[np.bool_]]:
        """The sample's tokens, filled up, and which of them are trained."""
        unpadded = len(sample.prompt) + len(sample.answer)
        tokens = np.full(unpadded + -unpadded % self.block_length, end, dtype=np.int64)
        tokens[:unpadded] = sample.prompt + sample.answer
        trained = np.arange(len(tokens)) >= (len(sample.prompt) if self.stage == "sft" else 0)
        return tokens, trained


def draw_mask(trained: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray[np.bool_], float]:
    """Which of the trained tokens are masked (at least one), and the probability that each of them was."""
    for _ in range(MAX_REDRAWS):
        probability = (1 - EPSILON) * rng.random() + EPSILON
        masked = trained & (rng.random(len(trained)) < probability)
        if masked.any():
            return masked, probability
    masked = np.zeros_like(trained)
    masked[rng.choice(np.flatnonzero(trained))] = True
    return masked, probability


def lay_out(
    tokens: IntArray,
    masked: NDArray[np.bool_],
    probability: float | FloatArray,
    num_trained: int,
    block_length: int,
    mask: int,
) -> Row:
    """The noised copy of a sample of n tokens, then the clean one: 2 n tokens."""
    num_tokens = len(tokens)
    positions = np.arange(num_tokens)
    clean = np.zeros(num_tokens)
    return Row(
        tokens=np.concatenate([np.where(masked, mask, tokens), tokens]),
        positions=np.tile(positions, 2),
        blocks=np.tile(positions // block_length, 2),
        noised=np.arange(2 * num_tokens) < num_tokens,
        targets=np.tile(tokens, 2),
        weights=np.concatenate([np.where(masked, 1 / np.asarray(probability), 0.0), clean]).astype(np.float32),
        normaliser=float(num_trained),
    )


def pack(rows: Sequence[Row]) -> Row:
    """Several rows as one; its parts do not see each other."""
    assert all(row.samples is None for row in rows), "rows are packed once"
    return Row(
        tokens=np.concatenate([row.tokens for row in rows]),
        positions=np.concatenate([row.positions for row in rows]),
        blocks=np.concatenate([row.blocks for row in rows]),
        noised=np.concatenate([row.noised for row in rows]),
        targets=np.concatenate([row.targets for row in rows]),
        weights=np.concatenate([row.weights for row in rows]),
        samples=np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
        normaliser=sum(row.loss_normaliser for row in rows),
    )
