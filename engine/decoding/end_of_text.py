"""How sure a model is that its answer ends within the canvas.

Shape legend: M positions whose logits are at hand, V logit columns of this rank, K end-of-text ids, P sequences, G
width of the longest generated part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.decoding.vocabulary import Vocabulary


def expected_ends(logits_MV: Tensor, vocabulary: Vocabulary, eos_ids_K: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the most probable token of each position ends the text, and the probability that its token does."""
    best = vocabulary.best(logits_MV)
    probability_M = (vocabulary.log_total_of(logits_MV, eos_ids_K) - best.log_total_M).exp()
    return torch.isin(best.token_M, eos_ids_K), probability_M


def end_confidence(expected_PG: Tensor, probability_PG: Tensor, window_P: Tensor) -> Tensor:
    """Of the positions that are expected to end the text the last ``window`` count: the sum of their probabilities
    over the window, float32 ``[P]`` (DAEDAL, arXiv 2508.00819). 1 needs a full window of certain ends."""
    from_behind_PG = expected_PG.flip(1).cumsum(dim=1).flip(1)
    counted_PG = expected_PG & (from_behind_PG <= window_P[:, None])
    total_P = probability_PG.double().masked_fill(~counted_PG, 0.0).sum(dim=1)
    return (total_P / window_P).float()
