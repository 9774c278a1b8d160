"""Predicted work: how many positions a sequence will feed to the network, learned from what finished ones cost.

Least work, not least requests, is what balances replicas of a diffusion model: with the same number of tokens one
strategy computes 10 times the positions of another. Plain arithmetic, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from engine.outputs import Usage

SMOOTHING = 0.2
MAX_STRATEGIES = 512
"""Strategies that are remembered per model, the least recently used is forgotten: their knobs are the clients'."""

DEFAULT_LOOK = 32
"""Positions beside the block that vicinity policies compute, where the request does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkShape:
    """What the work of a sequence depends on. ``strategy`` tells strategies apart whose expectations differ."""

    prompt_tokens: int
    max_tokens: int
    block_length: int
    cache: str
    strategy: str = ""

    @property
    def family(self) -> tuple[str, int]:
        """Sequences of one family fill a batch well: the same cache policy, canvases within a factor of two."""
        return self.cache, (self.prompt_tokens + self.max_tokens).bit_length()


@dataclass(frozen=True, slots=True)
class Expectation:
    """Tokens per forward, and the share of ``max_tokens`` that is generated before the sequence ends."""

    tokens_per_forward: float = 2.0
    fill: float = 1.0

    def after(self, max_tokens: int, usage: Usage) -> Expectation:
        """The expectation once a sequence of this kind has finished."""
        fill = min(usage.completion_tokens / max(max_tokens, 1), 1.0)
        return Expectation(
            self.tokens_per_forward + SMOOTHING * (usage.tokens_per_forward - self.tokens_per_forward),
            self.fill + SMOOTHING * (fill - self.fill),
        )


def predict_steps(shape: WorkShape, expected: Expectation) -> float:
    """Forwards of the sequence: a block of B positions takes B / TPF of them."""
    blocks, steps_per_block = _steps(shape, expected)
    return blocks * steps_per_block


def predict_positions(shape: WorkShape, expected: Expectation) -> float:
    """Query positions that the sequence will feed to the network.

    A block of B positions takes s = B / TPF steps on a canvas of L. The terms are the rows that the cache policies
    plan: everything at each step (none), a refresh per block and then the suffix or the block (prefix, dual), the
    block with its neighbours (vicinity, drift, window), the prompt once and the block at each step and once more when
    it is final (block). Policies that are not known here count as none, which is the most.
    """
    block = max(shape.block_length, 1)
    canvas = shape.prompt_tokens + shape.max_tokens
    tokens = max(expected.fill * shape.max_tokens, 1.0)
    blocks, steps = _steps(shape, expected)
    if shape.cache == "block":
        return shape.prompt_tokens + blocks * block * (steps + 1)
    inner: Mapping[str, float] = {
        "prefix": shape.max_tokens - tokens / 2,
        "dual": block,
        "vicinity": block + DEFAULT_LOOK,
        "drift": block + DEFAULT_LOOK,
    }
    if shape.cache == "window":
        return blocks * steps * min(block + DEFAULT_LOOK, canvas)
    return blocks * (canvas + (steps - 1) * min(inner.get(shape.cache, canvas), canvas))


def _steps(shape: WorkShape, expected: Expectation) -> tuple[float, float]:
    """Blocks that will be decoded, and the steps that each takes."""
    block = max(shape.block_length, 1)
    tokens = max(expected.fill * shape.max_tokens, 1.0)
    steps = min(block, tokens) / max(expected.tokens_per_forward, 1 / block)
    return max(tokens / block, 1.0), max(steps, 1.0)


class WorkModel:
    """Owns what one model's finished sequences have taught, per strategy and over all of them."""

    def __init__(self) -> None:
        self._overall = Expectation()
        self._by_strategy: OrderedDict[str, Expectation] = OrderedDict()

    def expect(self, strategy: str) -> Expectation:
        """A strategy that was not seen yet is expected to behave as the others do."""
        return self._by_strategy.get(strategy, self._overall)

    def predict(self, shape: WorkShape) -> float:
        """Positions that a sequence will compute."""
        return predict_positions(shape, self.expect(shape.strategy))

    def predict_steps(self, shape: WorkShape) -> float:
        """Forwards that a sequence will take."""
        return predict_steps(shape, self.expect(shape.strategy))

    def learn(self, shape: WorkShape, usage: Usage) -> None:
        """Take in a sequence that ran to its end."""
        if usage.forwards == 0:
            return
        expectation = self.expect(shape.strategy).after(shape.max_tokens, usage)
        self._overall = self._overall.after(shape.max_tokens, usage)
        self._by_strategy[shape.strategy] = expectation
        self._by_strategy.move_to_end(shape.strategy)
        while len(self._by_strategy) > MAX_STRATEGIES:
            self._by_strategy.popitem(last=False)
