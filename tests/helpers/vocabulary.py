"""What one rank makes of logits, and what several ranks of threads make of their columns of them.

Shape legend: M positions, V logit columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.decoding.vocabulary import Vocabulary
from tests.helpers.ranks import ThreadGroup, tensor_ranks

Work = Callable[[Vocabulary, Tensor], Tensor]
"""From one rank's logits to numbers."""


def random_logits(count: int, size: int, seed: int = 0, scale: float = 3.0, levels: int | None = None) -> Tensor:
    """Normal logits; with ``levels``, rounded to multiples of 1/levels so that many are equal, across ranks too."""
    logits_MV = torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) * scale
    return logits_MV if levels is None else (logits_MV * levels).round() / levels


def alone(work: Work, logits_MV: Tensor) -> Tensor:
    return work(Vocabulary(logits_MV.shape[1]), logits_MV.clone())


def numbers_of_ranks(count: int, work: Work, logits_MV: Tensor) -> Tensor:
    """What ``work`` returns on every one of ``count`` ranks: the same bits, or the assertion fails."""
    results = _on_ranks(count, work, logits_MV)
    for other in results[1:]:
        assert torch.equal(other, results[0]), "the ranks disagree"
    return results[0]


def columns_of_ranks(count: int, work: Work, logits_MV: Tensor) -> Tensor:
    """What ``work`` makes of the logits of each rank, side by side."""
    return torch.cat(_on_ranks(count, work, logits_MV), dim=1)


def _on_ranks(count: int, work: Work, logits_MV: Tensor) -> list[Tensor]:
    size = logits_MV.shape[1]

    def run(group: ThreadGroup) -> Tensor:
        vocabulary = Vocabulary(size, group)
        result = work(vocabulary, logits_MV[:, vocabulary.start : vocabulary.end].clone())
        assert count == 1 or max(group.sizes, default=0) <= 2048 * len(logits_MV), "a collective is as wide as logits"
        return result

    return tensor_ranks(count, lambda ranks: run(ranks.tensor))  # type: ignore[arg-type]
