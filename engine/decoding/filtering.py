"""Top-k and top-p, on one rank that sees all logits and on several of which each sees some.

Both filters keep a beginning of the tokens in order of (logit, smaller id). One rank sorts and cuts. Several search for
the logit at each cut, eight of its 32 bits per exchange: every rank tells how many of its tokens, or how much
probability, stand in front of 255 places to cut at. That is eleven exchanges of at most 255 numbers per position,
whatever the distribution, and nothing in it waits for the host.

Shape legend: G ranks, M positions, V logit columns of this rank, D digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.vocabulary import Vocabulary

_DIGIT_BITS = 8
_KEY_BITS = 32


def filter_top_k_top_p(logits_MV: Tensor, vocabulary: Vocabulary, top_k_M: Tensor, top_p_M: Tensor) -> Tensor:
    """Set what top-k, then top-p leave out to -inf, in float32. Ties at the k-th value stay; the token that crosses
    ``top_p`` stays, and so does the first.

    The number of ranks makes a difference only where the probability before a token equals ``top_p`` to the last bit
    of float32.
    """
    sorted_MV, order_MV = torch.sort(logits_MV, dim=1, descending=True, stable=True)
    cut = _cut_whole if vocabulary.whole else _cut_divided
    return torch.empty_like(logits_MV).scatter_(1, order_MV, cut(sorted_MV, vocabulary, top_k_M, top_p_M))


def ascending_bits(logits: Tensor) -> Tensor:
    """The bits of float32 numbers as int64 in the order of the numbers; of -0 those of 0."""
    bits = (logits + 0.0).view(torch.int32).long()
    return bits ^ ((bits >> 63) & 0x7FFFFFFF)


def _cut_whole(sorted_MV: Tensor, vocabulary: Vocabulary, top_k_M: Tensor, top_p_M: Tensor) -> Tensor:
    last_M1 = torch.where(top_k_M > 0, top_k_M, vocabulary.size).clamp(max=vocabulary.size)[:, None] - 1
    sorted_MV = sorted_MV.masked_fill(sorted_MV < sorted_MV.gather(1, last_M1), -torch.inf)
    probabilities_MV = sorted_MV.softmax(dim=1)
    before_MV = probabilities_MV.cumsum(dim=1) - probabilities_MV
    dropped_MV = (before_MV > top_p_M[:, None]) & (top_p_M < 1)[:, None]
    dropped_MV[:, 0] = False
    return sorted_MV.masked_fill(dropped_MV, -torch.inf)


def _cut_divided(sorted_MV: Tensor, vocabulary: Vocabulary, top_k_M: Tensor, top_p_M: Tensor) -> Tensor:
    key_MV = (2**31 - 1) - ascending_bits(sorted_MV)  # [0, 2^32), ascending in the order of the tokens
    k_M1 = torch.where(top_k_M > 0, top_k_M, vocabulary.size).clamp(max=vocabulary.size)[:, None]

    def reaches_k(last_MD: Tensor) -> Tensor:
        return vocabulary.total(_count(key_MV, last_MD)) >= k_M1

    sorted_MV = sorted_MV.masked_fill(key_MV > _first_key(reaches_k, k_M1), -torch.inf)
    mass = _Mass.of(sorted_MV, vocabulary)
    limit_M1 = torch.where(top_p_M < 1, top_p_M, torch.inf)[:, None]

    def exceeds_p(last_MD: Tensor) -> Tensor:
        return vocabulary.total(mass.until(_count(key_MV, last_MD))).float() > limit_M1

    cut_M1 = _first_key(exceeds_p, k_M1)
    before_MV = _before_among_equals(key_MV, cut_M1, mass, vocabulary)
    dropped_MV = (key_MV > cut_M1) | ((key_MV == cut_M1) & (before_MV > limit_M1))
    return sorted_MV.masked_fill(dropped_MV, -torch.inf)


@dataclass(frozen=True, slots=True)
class _Mass:
    """Probabilities of this rank's tokens in their order, and the sums of as many as the second index says."""

    probabilities_MV: Tensor
    sums_MV1: Tensor

    @classmethod
    def of(cls, sorted_MV: Tensor, vocabulary: Vocabulary) -> _Mass:
        (top_GM,) = vocabulary.gather(sorted_MV[:, 0])
        weights_MV = (sorted_MV - top_GM.amax(dim=0)[:, None]).exp()
        (total_GM,) = vocabulary.gather(weights_MV.sum(dim=1))
        probabilities_MV = weights_MV.div_(total_GM.sum(dim=0)[:, None])
        count, width = sorted_MV.shape
        sums_MV1 = probabilities_MV.new_zeros((count, width + 1), dtype=torch.float64)
        torch.cumsum(probabilities_MV, dim=1, dtype=torch.float64, out=sums_MV1[:, 1:])
        return cls(probabilities_MV, sums_MV1)

    def until(self, count_MD: Tensor) -> Tensor:
        """Of the first tokens together."""
        return self.sums_MV1.gather(1, count_MD)


def _before_among_equals(key_MV: Tensor, cut_M1: Tensor, mass: _Mass, vocabulary: Vocabulary) -> Tensor:
    """The probability before each token whose logit is the one at the cut, rounded as a running float32 sum is; all
    ranks' tokens with that logit stand in the order of their ids."""
    less_M1, until_M1 = _count(key_MV, cut_M1 - 1), _count(key_MV, cut_M1)
    equal_GM, before_GM = vocabulary.gather((until_M1 - less_M1)[:, 0].double(), mass.until(less_M1)[:, 0])
    earlier_M = equal_GM[: vocabulary.rank].sum(dim=0)
    place_V = torch.arange(1, key_MV.shape[1] + 1, dtype=torch.float64, device=key_MV.device)
    number_MV = place_V - (less_M1 - earlier_M[:, None])
    until_MV = number_MV.mul_(mass.probabilities_MV).add_(before_GM.sum(dim=0)[:, None])
    return until_MV.float() - mass.probabilities_MV


def _count(key_MV: Tensor, last_MD: Tensor) -> Tensor:
    """How many of this rank's tokens have at most these keys."""
    return torch.searchsorted(key_MV, last_MD.contiguous(), right=True)


def _first_key(reached: Callable[[Tensor], Tensor], like_M1: Tensor) -> Tensor:
    """The smallest key ``[M, 1]`` for which ``reached`` holds, given ``[M, D]`` keys; the largest where it never does.
    Once it holds it holds for all larger keys."""
    key_M1 = torch.zeros_like(like_M1)
    digit_D = torch.arange(1, 2**_DIGIT_BITS, device=like_M1.device)
    for shift in range(_KEY_BITS - _DIGIT_BITS, -1, -_DIGIT_BITS):
        missed_MD = ~reached(key_M1 + (digit_D << shift) - 1)
        key_M1 = key_M1 + (missed_MD.sum(dim=1, keepdim=True) << shift)
    return key_M1
