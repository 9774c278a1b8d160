"""Compressed transitions: from one state of a decoding to what the next few rounds have filled in.

Source: LLaDA-MoE-TD (dInfer, arXiv 2510.08666): with Delta the positions that are masks in state s_i and filled in the
later s_j, the loss is the cross entropy of the final tokens at Delta given s_i. Labels are hard; no teacher is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.training.data import EncodedSample
from engine.training.noise import IntArray, Objective, Row, noised_and_clean

BoolArray = NDArray[np.bool_]


class Transition(NamedTuple):
    """Positions that are filled in a state, and those that are to be predicted from it."""

    known: BoolArray
    labelled: BoolArray


@dataclass(frozen=True, slots=True)
class Compress:
    """A jump covers ``low`` to ``high`` rounds, each as likely, or as many as are left."""

    low: int = 2
    high: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise ConfigError(
                f"compress must be LOW..HIGH with 1 <= LOW <= HIGH, got {self.low}..{self.high}", "compress"
            )

    def draw(self, revealed_at: IntArray, rng: np.random.Generator) -> Transition:
        """A jump from any state but the last one, each as likely. Steps that filled nothing are no rounds: the state
        before them is the state after them."""
        rounds = np.unique(revealed_at[revealed_at > 0])
        num_rounds = int(rng.integers(self.low, self.high + 1))
        if not len(rounds):
            nowhere = np.zeros(len(revealed_at), dtype=np.bool_)
            return Transition(nowhere, nowhere)
        first = int(rng.integers(len(rounds)))
        last = rounds[min(first + num_rounds, len(rounds)) - 1]
        filled = revealed_at > 0
        known = filled & (revealed_at < rounds[first])
        return Transition(known, filled & ~known & (revealed_at <= last))


@dataclass(frozen=True, slots=True)
class CanvasTransition(Objective):
    """For networks without an attention mask: prompt and canvas exactly as the model saw them at that step.

    Positions behind the end of the answer weigh ``tail_weight``.
    """

    compress: Compress = Compress()
    tail_weight: float = 0.1

    def row(self, sample: EncodedSample, mask: int, end: int, rng: np.random.Generator) -> Row:
        canvas = np.array(sample.canvas)
        transition = self.compress.draw(np.array(sample.revealed_at), rng)
        prompt = np.array(sample.prompt)
        tokens = np.concatenate([prompt, np.where(transition.known, canvas, mask)])
        weights = np.zeros(len(tokens), dtype=np.float32)
        weights[len(prompt) :] = transition.labelled
        weights[len(prompt) + len(sample.answer) :] *= self.tail_weight
        return Row(
            tokens=tokens,
            positions=np.arange(len(tokens)),
            blocks=np.zeros(len(tokens), dtype=np.int64),
            noised=np.zeros(len(tokens), dtype=np.bool_),
            targets=np.concatenate([prompt, canvas]),
            weights=weights,
        )


@dataclass(frozen=True, slots=True)
class BlockTransition(Objective):
    """For block-causal networks, whose blocks count from position 0: every block of the answer in a state of its own,
    given the clean blocks before it.

    All blocks fit into one row exactly, because a block is decoded from finished blocks and itself alone. A jump ends
    with its block: what comes behind it is not there yet.
    """

    block_length: int
    compress: Compress = Compress()
    tail_weight: float = 0.3

    def row(self, sample: EncodedSample, mask: int, end: int, rng: np.random.Generator) -> Row:
        size, prompt_len = self.block_length, len(sample.prompt)
        used = prompt_len + len(sample.answer)
        total = used + -used % size
        tokens = np.concatenate([sample.prompt, sample.canvas])[:total].astype(np.int64)
        revealed_at = np.concatenate([np.zeros(prompt_len, np.int64), sample.revealed_at])[:total]
        start = prompt_len // size * size
        drawn = [self.compress.draw(block, rng) for block in revealed_at[start:].reshape(-1, size)]
        known = np.concatenate([transition.known for transition in drawn])
        known[: prompt_len - start] = True
        weights = np.concatenate([transition.labelled for transition in drawn]).astype(np.float32)
        weights[used - start :] *= self.tail_weight
        blocks = np.arange(total) // size
        return noised_and_clean(np.where(known, tokens[start:], mask), weights, tokens, blocks, size)
