"""What is as wide as the vocabulary, on ranks of which each has the logits of some tokens only.

Shape legend: G ranks, M positions, V logit columns of this rank, K token ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.extremes import top, top_and_total, use_up
from engine.parallel import ALONE, Group

MAX_SIZE = 2**24
"""Token ids below are exact in float32, the type in which ranks exchange them."""


@dataclass(frozen=True, slots=True)
class Best:
    """The most probable token of each position, its logit, and the logarithm of the sum of all exp(logits)."""

    logit_M: Tensor
    token_M: Tensor
    log_total_M: Tensor

    @property
    def probability_M(self) -> Tensor:
        """softmax(logits)[token]."""
        return (self.logit_M - self.log_total_M).exp()


class Vocabulary:
    """The token ids ``[0, size)``, of which this rank has the logits of ``[start, end)``: column v is token start + v.

    Whatever looks along the columns or asks for a token by its id goes through this class; arithmetic that takes each
    logit by itself needs nothing. Numbers that methods return are equal on all ranks, to the bit: each rank gives a few
    per position away, never its logits, and all combine everybody's in rank order. So all ranks have to make the same
    calls. Tensors ``[M, V]`` that methods return are this rank's columns.

    Of equal logits the smallest id counts, on whichever rank. One rank alone combines its own numbers with nobody's,
    which changes no bit of them.
    """

    def __init__(self, size: int, group: Group = ALONE.tensor) -> None:
        assert group.part.count <= size <= MAX_SIZE, (size, group.part)
        self.size = size
        self.start, self.end = group.part.span(size)
        self._group = group

    @property
    def width(self) -> int:
        """Columns of this rank."""
        return self.end - self.start

    @property
    def widest(self) -> int:
        """Columns of the rank that has most: what decides how many positions are looked at in turn, since all ranks
        have to take equal turns."""
        return -(-self.size // self._group.part.count)

    @property
    def rank(self) -> int:
        """Which part of the ids this rank has."""
        return self._group.part.index

    @property
    def whole(self) -> bool:
        """Whether this rank has all columns."""
        return self._group.part.count == 1

    def token_ids(self, device: torch.device) -> Tensor:
        """The ids of this rank's columns ``[V]``."""
        return torch.arange(self.start, self.end, device=device)

    def column(self, token_id: int) -> int | None:
        """Where this rank has the token, None where another rank has it."""
        return token_id - self.start if self.start <= token_id < self.end else None

    def columns(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Where this rank has each token, and whether it does; column 0 for other ranks' tokens and for -1, which is no
        token."""
        held = (token_ids >= self.start) & (token_ids < self.end)
        return (token_ids - self.start).where(held, 0), held

    # Numbers per position

    def best(self, logits_MV: Tensor, without: int | None = None) -> Best:
        """The most probable token but ``without``, which keeps its share of the total."""
        return self._best(*top_and_total(logits_MV, None if without is None else self.column(without)))

    def best_in_parts(self, parts: Iterable[tuple[int, Tensor]], without: int | None = None) -> Best:
        """:meth:`best` of upright logits of adjacent columns: the first column and the logits ``[v, M]`` of each part,
        which are used up."""
        column = None if without is None else self.column(without)
        found = []
        for start, logits_VM in parts:
            inside = None if column is None or not 0 <= column - start < len(logits_VM) else column - start
            top_M, row_M, log_total_M = use_up(logits_VM, inside)
            found.append((top_M, row_M + start, log_total_M))
        top_PM, column_PM, log_total_PM = (torch.stack(numbers) for numbers in zip(*found, strict=True))
        part_1M = top_PM.argmax(dim=0, keepdim=True)
        return self._best(top_PM.gather(0, part_1M)[0], column_PM.gather(0, part_1M)[0], log_total_PM.logsumexp(dim=0))

    def _best(self, top_M: Tensor, column_M: Tensor, log_total_M: Tensor) -> Best:
        """Of all ranks' largest the first, and their totals added up."""
        if self.whole:
            return Best(top_M, column_M, log_total_M)
        top_GM, token_GM, log_total_GM = self.gather(top_M, self._numbers(column_M, top_M), log_total_M)
        return Best(*_first_largest(top_GM, token_GM), log_total_GM.logsumexp(dim=0))

    def largest(self, scores_MV: Tensor) -> tuple[Tensor, Tensor]:
        """The largest score of each position and its token."""
        top_M, column_M = top(scores_MV)
        return _first_largest(*self.gather(top_M, self._numbers(column_M, top_M)))

    def log_total(self, logits_MV: Tensor) -> Tensor:
        """The logarithm of the sum of all exp(logits)."""
        return self.gather(logits_MV.logsumexp(dim=1))[0].logsumexp(dim=0)

    def log_total_of(self, logits_MV: Tensor, tokens_K: Tensor) -> Tensor:
        """The logarithm of the sum of exp(logits) over the given tokens; -inf without any."""
        column_K, held_K = self.columns(tokens_K)
        own_MK = logits_MV[:, column_K].masked_fill(~held_K, -torch.inf)
        return self.gather(own_MK.logsumexp(dim=1))[0].logsumexp(dim=0)

    def pick(self, logits_MV: Tensor, tokens_MK: Tensor) -> Tensor:
        """The logits of tokens of each position ``[M, K]``; 0 for -1."""
        return self.total(self.own(logits_MV, tokens_MK))

    def probability_of(self, logits_MV: Tensor, tokens_M: Tensor) -> Tensor:
        """softmax(logits)[token]."""
        if self.whole:
            return (logits_MV.gather(1, tokens_M[:, None]).squeeze(1) - logits_MV.logsumexp(dim=1)).exp()
        chosen_M = self.own(logits_MV, tokens_M[:, None]).squeeze(1)
        chosen_GM, log_total_GM = self.gather(chosen_M, logits_MV.logsumexp(dim=1))
        return (chosen_GM.sum(dim=0) - log_total_GM.logsumexp(dim=0)).exp()

    def entropy(self, logits_MV: Tensor) -> Tensor:
        """Of softmax(logits), in nats: that of the shares that ranks have, and what is left within the ranks."""
        log_probabilities_MV = logits_MV.log_softmax(dim=1)
        own_M = -(log_probabilities_MV.exp() * log_probabilities_MV).nan_to_num(nan=0.0).sum(dim=1)
        if self.whole:
            return own_M
        own_GM, log_total_GM = self.gather(own_M, logits_MV.logsumexp(dim=1))
        log_share_GM = log_total_GM.log_softmax(dim=0)
        return (log_share_GM.exp() * (own_GM - log_share_GM)).nan_to_num(nan=0.0).sum(dim=0)

    def margin(self, logits_MV: Tensor) -> Tensor:
        """The probability of the best token less that of the second."""
        if self.whole:
            return _difference(logits_MV.softmax(dim=1).topk(2, dim=1).values.T)
        own_M2 = logits_MV.new_full((len(logits_MV), 2), -torch.inf)
        own_M2[:, : self.width] = logits_MV.topk(min(2, self.width), dim=1).values
        *best_GM, log_total_GM = self.gather(*own_M2.unbind(1), logits_MV.logsumexp(dim=1))
        best_2M = torch.cat(best_GM).topk(2, dim=0).values
        return _difference((best_2M - log_total_GM.logsumexp(dim=0)).exp())

    # Columns

    def log_softmax(self, logits_MV: Tensor) -> Tensor:
        """Log-probabilities of this rank's tokens among all."""
        return logits_MV.log_softmax(dim=1) if self.whole else logits_MV - self.log_total(logits_MV)[:, None]

    def softmax(self, logits_MV: Tensor) -> Tensor:
        """Probabilities of this rank's tokens among all."""
        return logits_MV.softmax(dim=1) if self.whole else self.log_softmax(logits_MV).exp()

    def without(self, logits_MV: Tensor, token_id: int) -> Tensor:
        """A copy with -inf at one token."""
        copy_MV = logits_MV.clone()
        if (column := self.column(token_id)) is not None:
            copy_MV[:, column] = -torch.inf
        return copy_MV

    def without_listed(self, logits_MV: Tensor, tokens_MK: Tensor) -> Tensor:
        """A copy with -inf at the tokens listed for each position (-1: no entry)."""
        return self.put(logits_MV.clone(), tokens_MK, logits_MV.new_full(tokens_MK.shape, -torch.inf))

    def own(self, logits_MV: Tensor, tokens_MK: Tensor) -> Tensor:
        """The logits of tokens of each position ``[M, K]`` that this rank has, 0 for all others: for arithmetic whose
        result :meth:`put` writes back."""
        column_MK, held_MK = self.columns(tokens_MK)
        return logits_MV.gather(1, column_MK).masked_fill(~held_MK, 0.0)

    def put(self, logits_MV: Tensor, tokens_MK: Tensor, values_MK: Tensor) -> Tensor:
        """Write the values of tokens of each position, in place; -1 is no entry. Entries of one token must be equal.

        An entry that is no column of this rank repeats the first one that is, or writes back what column 0 holds.
        """
        column_MK, held_MK = self.columns(tokens_MK)
        first_M1 = held_MK.int().argmax(dim=1, keepdim=True)
        column_M1 = column_MK.gather(1, first_M1)
        value_M1 = values_MK.gather(1, first_M1).where(held_MK.gather(1, first_M1), logits_MV.gather(1, column_M1))
        return logits_MV.scatter_(1, column_MK.where(held_MK, column_M1), values_MK.where(held_MK, value_M1))

    def add(self, logits_MV: Tensor, tokens_MK: Tensor, values_MK: Tensor) -> Tensor:
        """Add the values to the logits of tokens of each position, in place; -1 is no entry."""
        column_MK, held_MK = self.columns(tokens_MK)
        return logits_MV.scatter_add_(1, column_MK, values_MK.masked_fill(~held_MK, 0.0))

    # Exchange

    def gather(self, *numbers_M: Tensor) -> tuple[Tensor, ...]:
        """All ranks' numbers, ``[G, M, ...]`` each, in one exchange; they are of one type and shape."""
        own_CM = torch.stack(numbers_M)
        if own_CM.numel() == 0:
            return own_CM[None].unbind(1)
        return self._group.all_gather(own_CM).unbind(1)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks; the argument may be changed in place."""
        return self._group.all_reduce(tensor) if tensor.numel() else tensor

    def _numbers(self, column_M: Tensor, like: Tensor) -> Tensor:
        """The token ids of columns, in the type of ``like``."""
        return (column_M + self.start).to(like.dtype)


def _first_largest(top_GM: Tensor, token_GM: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of the ranks' largest, and its token: ids ascend with the ranks, so the first is the smallest."""
    rank_1M = top_GM.argmax(dim=0, keepdim=True)
    return top_GM.gather(0, rank_1M)[0], token_GM.gather(0, rank_1M)[0].long()


def _difference(best_2M: Tensor) -> Tensor:
    return best_2M[0] - best_2M[1]
