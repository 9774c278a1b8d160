"""Tokens divided over the ranks, each row sent to the rank that has its expert: the dispatch for groups of many ranks.

Every rank knows the routing of all tokens, so how many rows travel is counted, not told.

Shape legend: T tokens of a forward, G ranks, C tokens of a rank (the last ranks may have fewer), D hidden size,
K experts per token, A assignments of a token to an expert, S those of this rank's tokens, R those to its experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.layers.division import Span
from engine.layers.experts import Experts, combine
from engine.layers.routing import Routing
from engine.parallel import Group, Part


def own_tokens(num_tokens: int, part: Part) -> Span:
    """The tokens that a rank looks after."""
    share = -(-num_tokens // part.count)
    start = min(part.index * share, num_tokens)
    return start, min(start + share, num_tokens)


def gather_tokens(own_CD: Tensor, num_tokens: int, group: Group) -> Tensor:
    """The tokens of all ranks, ``[T, D]``, on every rank."""
    padded_CD = own_CD.new_zeros((-(-num_tokens // group.part.count), own_CD.shape[1]))
    padded_CD[: len(own_CD)] = own_CD
    return group.all_gather(padded_CD).flatten(0, 1)[:num_tokens]


def exchange(experts: Experts, x_TD: Tensor, routing: Routing, group: Group) -> Tensor:
    """Weighted sums of the experts' outputs for this rank's tokens, ``[C, D]``."""
    num_tokens, per_token = routing.experts_TK.shape
    start, end = own_tokens(num_tokens, group.part)
    journey = _plan(experts, routing.experts_TK, group.part)
    leaving_SD = x_TD[start + journey.order_S // per_token]
    arrived_RD = group.all_to_all(leaving_SD, journey.sent, journey.received)
    sorted_RD = experts.compute(arrived_RD[journey.sorting_R], experts.ends(journey.expert_R))
    computed_RD = torch.empty_like(sorted_RD).index_copy(0, journey.sorting_R, sorted_RD)
    returned_SD = group.all_to_all(computed_RD, journey.received, journey.sent)
    return combine(returned_SD, journey.order_S, routing.weights_TK[start:end])


@dataclass(frozen=True, slots=True)
class _Journey:
    """``order_S``: this rank's assignments in the order in which they leave, by expert. ``sent`` and ``received``: rows
    to and from each rank. ``sorting_R`` sorts what arrives, which is in the order (rank, expert), by expert;
    ``expert_R`` are the experts then, numbered from this rank's first."""

    order_S: Tensor
    sent: list[int]
    received: list[int]
    sorting_R: Tensor
    expert_R: Tensor


def _plan(experts: Experts, experts_TK: Tensor, part: Part) -> _Journey:
    """The host waits for the numbers of rows."""
    start, end = own_tokens(len(experts_TK), part)
    expert_S = experts_TK[start:end].flatten()
    owner_ends = [Part(rank, part.count).span(experts.num_experts)[1] for rank in range(part.count)]
    owner_S = torch.searchsorted(torch.tensor(owner_ends, device=expert_S.device), expert_S, right=True)

    token_R, choice_R = torch.nonzero((experts_TK >= experts.first) & (experts_TK < experts.end), as_tuple=True)
    sender_R = token_R // -(-len(experts_TK) // part.count)
    local_R = experts_TK[token_R, choice_R] - experts.first
    arriving_R = local_R[(sender_R * experts.num_experts + local_R).argsort(stable=True)]
    expert_R, sorting_R = arriving_R.sort(stable=True)
    return _Journey(
        order_S=expert_S.argsort(stable=True),
        sent=torch.bincount(owner_S, minlength=part.count).tolist(),
        received=torch.bincount(sender_R, minlength=part.count).tolist(),
        sorting_R=sorting_R,
        expert_R=expert_R,
    )
