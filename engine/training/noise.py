"""Objectives: how a sample becomes one training row.

A row lists tokens with positions, a block index and a flag "noised". Attention follows one rule (see
:func:`attention_mask`): clean tokens see clean tokens of their own and earlier blocks; noised tokens see the noised
tokens of their own block and clean tokens of earlier blocks. With a single block of clean tokens that is full
attention.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.training.data import EncodedSample

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
PADDING_BLOCK = -1
CANVAS_MULTIPLES = (8, 8, 8, 16, 32, 32, 64, 64, 128)


@dataclass(frozen=True, slots=True)
class Row:
    """One training row of n tokens; ``weights`` is 0 where there is no loss, ``targets`` is then arbitrary.

    ``samples`` numbers the samples of a packed row (None: one), which do not see each other. The loss is the weighted
    sum divided by ``normaliser`` (None: by the sum of the weights); those of a batch add up.
    """

    tokens: IntArray
    positions: IntArray
    blocks: IntArray
    noised: NDArray[np.bool_]
    targets: IntArray
    weights: FloatArray
    samples: IntArray | None = None
    normaliser: float | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def loss_normaliser(self) -> float:
        return float(self.weights.sum()) if self.normaliser is None else self.normaliser


class Objective(ABC):
    """Turns a sample into a row; ``mask`` and ``end`` are token ids."""

    @abstractmethod
    def row(self, sample: EncodedSample, mask: int, end: int, rng: np.random.Generator) -> Row:
        """Draw the noise and lay out the row."""


def draw_masks(candidates_KB: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray[np.bool_], FloatArray]:
    """Mask k of each block's n candidates, k uniform in 1..n; return the masks and the weights n / k of the blocks.

    The exact count has less variance than independent draws, with the same expected loss (LLaDA, appendix A).
    """
    counts = candidates_KB.sum(axis=1)
    chosen = rng.integers(1, np.maximum(counts, 1) + 1)
    keys = np.where(candidates_KB, rng.random(candidates_KB.shape), 2.0)
    ranks = keys.argsort(axis=1).argsort(axis=1)
    masked = candidates_KB & (ranks < chosen[:, None])
    return masked, (counts / chosen).astype(np.float32)


@dataclass(frozen=True, slots=True)
class NextToken(Objective):
    """Autoregression as causal language models are trained: the token at i predicts token i + 1. Tokens of the prompt
    weigh ``prompt_weight``."""

    prompt_weight: float = 0.1

    def row(self, sample: EncodedSample, mask: int, end: int, rng: np.random.Generator) -> Row:
        tokens = np.array(sample.prompt + sample.answer, dtype=np.int64)
        positions = np.arange(len(tokens) - 1)
        in_answer = positions + 1 >= len(sample.prompt)
        return Row(
            tokens=tokens[:-1],
            positions=positions,
            blocks=positions,
            noised=np.zeros(len(positions), dtype=np.bool_),
            targets=tokens[1:],
            weights=np.where(in_answer, 1.0, self.prompt_weight).astype(np.float32),
        )


@dataclass(frozen=True, slots=True)
class Blocks(Objective):
    """Block diffusion with a noised and a clean copy (SDAR section 3; BD3-LM): each block is denoised given the clean
    past.

    Blocks of 1 make it an autoregressive objective in the layout of a model without shift: the mask at i sees the
    tokens before i and predicts token i. ``prompt_is_block`` counts blocks from the end of the prompt, which is then
    one bidirectional block; otherwise blocks count from position 0 of the sequence. Only the answer is noised.
    """

    block_length: int
    prompt_is_block: bool = False
    tail_weight: float = 0.3

    def row(self, sample: EncodedSample, mask: int, end: int, rng: np.random.Generator) -> Row:
        prompt_len, size = len(sample.prompt), self.block_length
        origin = prompt_len if self.prompt_is_block else 0
        unpadded = prompt_len + len(sample.answer)
        total = unpadded + (origin - unpadded) % size
        tokens = np.full(total, end, dtype=np.int64)
        tokens[:unpadded] = sample.prompt + sample.answer
        positions = np.arange(total)
        blocks = np.maximum((positions - origin) // size + int(self.prompt_is_block), 0)
        start = origin + (prompt_len - origin) // size * size
        candidates = (positions[start:] >= prompt_len).reshape(-1, size)
        masked_KB, weight_K = draw_masks(candidates, rng)
        masked = masked_KB.reshape(-1)
        weights = np.where(masked, np.repeat(weight_K, size), 0.0)
        weights[positions[start:] >= unpadded] *= self.tail_weight
        return noised_and_clean(np.where(masked, mask, tokens[start:]), weights, tokens, blocks, size)


def noised_and_clean(noised: IntArray, weights: FloatArray, tokens: IntArray, blocks: IntArray, size: int) -> Row:
    """The last blocks of ``tokens`` as they are ``noised``, then the clean copy of all but the last block of ``size``:
    nothing sees that one."""
    start, num_clean = len(tokens) - len(noised), len(tokens) - size
    positions = np.arange(len(tokens))
    return Row(
        tokens=np.concatenate([noised, tokens[:num_clean]]),
        positions=np.concatenate([positions[start:], positions[:num_clean]]),
        blocks=np.concatenate([blocks[start:], blocks[:num_clean]]),
        noised=np.arange(len(noised) + num_clean) < len(noised),
        targets=np.concatenate([tokens[start:], tokens[:num_clean]]),
        weights=np.concatenate([weights, np.zeros(num_clean)]).astype(np.float32),
    )


@dataclass(frozen=True, slots=True)
class Canvas(Objective):
    """Full-sequence masked diffusion as it is met in decoding (LLaDA): prompt, then a canvas under full attention.

    With ``block_length`` a block of the answer is current: decided tokens before it, random masks in it, masks after it
    up to the canvas's end. The masks behind the current block weigh ``rest_weight``. Without, random masks over the
    whole canvas. Behind the answer the canvas holds end-of-text ids; those after the first weigh ``tail_weight``.
    """

    block_length: int | None
    tail_weight: float = 0.1
    rest_weight: float = 0.25

    def row(self, sample: EncodedSample, mask: int, end: int, rng: np.random.Generator) -> Row:
        prompt_len, answer_len = len(sample.prompt), len(sample.answer)
        canvas_len = draw_canvas_len(answer_len, rng)
        tokens = np.full(prompt_len + canvas_len, end, dtype=np.int64)
        tokens[: prompt_len + answer_len] = sample.prompt + sample.answer
        size = self.block_length or canvas_len
        last_block = min(answer_len, canvas_len - 1) // size
        first = prompt_len + size * int(rng.integers(0, last_block + 1))
        positions = np.arange(len(tokens))
        current, rest = (positions >= first) & (positions < first + size), positions >= first + size
        masked_KB, weight_K = draw_masks(current[None, :], rng)
        masked = masked_KB[0]
        weights = np.where(masked, weight_K[0], np.where(rest, self.rest_weight, 0.0)).astype(np.float32)
        weights[prompt_len + answer_len :] *= self.tail_weight
        return Row(
            tokens=np.where(masked | rest, mask, tokens),
            positions=positions,
            blocks=np.zeros_like(positions),
            noised=np.zeros(len(tokens), dtype=np.bool_),
            targets=tokens,
            weights=weights,
        )


def draw_canvas_len(answer_len: int, rng: np.random.Generator) -> int:
    """Mostly little more than the answer needs, which is cheap; now and then the length of real requests."""
    multiple, share = (int(CANVAS_MULTIPLES[rng.integers(len(CANVAS_MULTIPLES))]), rng.random())
    rounded = -(-answer_len // multiple) * multiple
    return answer_len + int(rng.integers(0, multiple)) if share < 0.15 else rounded


def attention_mask(blocks_RN: Tensor, noised_RN: Tensor, samples_RN: Tensor | None = None) -> Tensor:
    """Boolean ``[R, 1, N, N]``, True where the query may see the key. Padding and the rest do not see each other, nor
    do different samples."""
    query, key = blocks_RN[:, :, None], blocks_RN[:, None, :]
    query_noised, key_noised = noised_RN[:, :, None], noised_RN[:, None, :]
    earlier_or_own_clean = (key < query) | ((key == query) & ~query_noised)
    allowed = torch.where(key_noised, query_noised & (key == query), earlier_or_own_clean)
    allowed &= (key != PADDING_BLOCK) & (query != PADDING_BLOCK)
    if samples_RN is not None:
        allowed &= samples_RN[:, :, None] == samples_RN[:, None, :]
    itself = torch.eye(blocks_RN.shape[1], dtype=torch.bool, device=blocks_RN.device)
    return (allowed | itself)[:, None]
