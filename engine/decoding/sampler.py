"""From logits to one candidate token per masked position, once per forward.

Shape legend: M masked positions of the decoded blocks, V logit columns of this rank, K listed or ranked token ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from engine.columns import MAX_LISTED_TOKENS, ColumnSpec
from engine.decoding.filtering import ascending_bits, filter_top_k_top_p
from engine.decoding.vocabulary import Best, Vocabulary
from engine.randomness import gumbel

SAMPLING_COLUMNS: Mapping[str, ColumnSpec] = MappingProxyType(
    {
        "temperature": ColumnSpec(torch.float32),
        "top_k": ColumnSpec(torch.int64),
        "top_p": ColumnSpec(torch.float32, fill=1.0),
        "seed": ColumnSpec(torch.int64),
        "noise": ColumnSpec(torch.int64, fill=1),
        "sampled_confidence": ColumnSpec(torch.int64),
        "guidance": ColumnSpec(torch.float32),
        "deferred": ColumnSpec(torch.int64, width=MAX_LISTED_TOKENS, fill=-1),
    }
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One candidate per position; see Candidates for the fields. Entropy and divergence are +inf, margin and current
    0, ranked -1 where they were not asked for."""

    tokens_M: Tensor
    confidence_M: Tensor
    probability_M: Tensor
    entropy_M: Tensor
    margin_M: Tensor
    divergence_M: Tensor
    current_M: Tensor
    ranked_MK: Tensor


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the positions that do not simply take the argmax draw their token; tensors with ``_M`` have one entry each.
    ``filtered`` are the indices of those with top-k or top-p, None without any."""

    temperature_M: Tensor
    top_k_M: Tensor
    top_p_M: Tensor
    seed_M: Tensor
    step_M: Tensor
    position_M: Tensor
    noise_M: Tensor
    sampled_confidence_M: Tensor
    filtered: Tensor | None


def propose(
    logits_MV: Tensor,
    vocabulary: Vocabulary,
    mask_token_id: int,
    entropy_rows: Tensor | None = None,
    margin_rows: Tensor | None = None,
) -> Proposal:
    """Take the most probable token; its confidence is softmax(logits)[token] in float32.

    The mask id is never proposed, but its probability stays in the denominator. ``entropy_rows`` and
    ``margin_rows`` (indices into M) say where those are wanted. ``logits_MV`` float32 is left unchanged.
    """
    return replace(
        propose_best(vocabulary.best(logits_MV, without=mask_token_id)),
        entropy_M=_entropy(logits_MV, vocabulary, entropy_rows),
        margin_M=_margin(logits_MV, vocabulary, margin_rows),
    )


def propose_best(best: Best) -> Proposal:
    """The most probable token of each position, where nothing else is asked for."""
    probability_M = best.probability_M
    return Proposal(
        best.token_M,
        probability_M,
        probability_M,
        entropy_M=torch.full_like(probability_M, torch.inf),
        margin_M=torch.zeros_like(probability_M),
        divergence_M=torch.full_like(probability_M, torch.inf),
        current_M=torch.zeros_like(probability_M),
        ranked_MK=best.token_M.new_empty((len(probability_M), 0)),
    )


def draw(
    logits_MV: Tensor,
    vocabulary: Vocabulary,
    mask_token_id: int,
    drawing: Drawing,
    proposal: Proposal,
    entropy_rows: Tensor | None = None,
    margin_rows: Tensor | None = None,
) -> Proposal:
    """``proposal`` with tokens drawn from the tempered and filtered distribution (temperature, then top-k, then top-p).

    Temperature 0 takes the argmax of the unchanged logits. Noise is a hash of (seed, step, position, token).
    ``entropy_rows`` and ``margin_rows`` say where those of the distribution are wanted.
    """
    drawn_M = drawing.temperature_M > 0
    top_M, _ = vocabulary.largest(vocabulary.without(logits_MV, mask_token_id))
    scaled_MV = (logits_MV - top_M[:, None]) / drawing.temperature_M.where(drawn_M, 1.0)[:, None]
    kept_MV = vocabulary.without(scaled_MV, mask_token_id)
    if (rows := drawing.filtered) is not None:
        top_k, top_p = drawing.top_k_M[rows], drawing.top_p_M[rows]
        kept_MV[rows] = filter_top_k_top_p(kept_MV[rows], vocabulary, top_k, top_p)
    distribution_MV = kept_MV.clone()
    if (mask := vocabulary.column(mask_token_id)) is not None:
        unfiltered_M = (drawing.top_k_M == 0) & (drawing.top_p_M >= 1)
        distribution_MV[:, mask] = scaled_MV[:, mask].where(unfiltered_M, -torch.inf)
    noisy_M1 = (drawing.noise_M.bool() & drawn_M)[:, None]
    token_V = vocabulary.token_ids(logits_MV.device)
    noise_MV = gumbel(drawing.seed_M[:, None], drawing.step_M[:, None], drawing.position_M[:, None], token_V)
    _, tokens_M = vocabulary.largest(torch.where(noisy_M1, kept_MV + noise_MV, kept_MV))
    sampled_M = vocabulary.probability_of(distribution_MV, tokens_M)
    model_M = vocabulary.probability_of(logits_MV, tokens_M)
    return replace(
        proposal,
        tokens_M=tokens_M,
        confidence_M=sampled_M.where(drawing.sampled_confidence_M.bool(), model_M),
        probability_M=model_M,
        entropy_M=_entropy(distribution_MV, vocabulary, entropy_rows),
        margin_M=_margin(distribution_MV, vocabulary, margin_rows),
    )


def defer(logits_MV: Tensor, vocabulary: Vocabulary, proposal: Proposal, deferred_MK: Tensor) -> Proposal:
    """Fill positions that propose a listed token last: confidence 0 for them, and for all others their probability
    with the listed tokens left out (LLaDA's ``confidence_eos_eot_inf``). Ids of -1 are no entry."""
    remaining_MV = vocabulary.without_listed(logits_MV, deferred_MK)
    listed_M = (deferred_MK >= 0).any(dim=1)
    remaining_M = vocabulary.probability_of(remaining_MV, proposal.tokens_M)
    return replace(proposal, confidence_M=remaining_M.where(listed_M, proposal.confidence_M))


def rank_tokens(logits_MV: Tensor, vocabulary: Vocabulary, mask_token_id: int, count: int) -> Tensor:
    """The ``count`` most probable tokens of each position, best first and without the mask id, ``[M, count]``; all of
    a smaller vocabulary. Of equal logits the smaller id comes first.

    ``topk`` leaves the order of equal values open, so it sees integers that all differ: the logit's bits in an order
    of integers, and below them the id.
    """
    lowest = torch.iinfo(torch.int64).min
    key_MV = (ascending_bits(logits_MV) << 32) - vocabulary.token_ids(logits_MV.device)
    if (mask := vocabulary.column(mask_token_id)) is not None:
        key_MV[:, mask] = lowest
    own_MK = key_MV.new_full((len(key_MV), count), lowest)
    found_MK = key_MV.topk(min(count, vocabulary.width), dim=1).values
    own_MK[:, : found_MK.shape[1]] = found_MK
    (key_GMK,) = vocabulary.gather(own_MK)
    return -key_GMK.movedim(0, 1).flatten(1).topk(min(count, vocabulary.size - 1), dim=1).values & 0xFFFFFFFF


def _entropy(logits_MV: Tensor, vocabulary: Vocabulary, rows: Tensor | None) -> Tensor:
    """Of each position's distribution in ``rows``, +inf elsewhere."""
    entropy_M = logits_MV.new_full((len(logits_MV),), torch.inf)
    if rows is not None:
        entropy_M[rows] = vocabulary.entropy(logits_MV[rows])
    return entropy_M


def _margin(logits_MV: Tensor, vocabulary: Vocabulary, rows: Tensor | None) -> Tensor:
    """Of each position's distribution in ``rows``, 0 elsewhere."""
    margin_M = logits_MV.new_zeros(len(logits_MV))
    if rows is not None:
        margin_M[rows] = vocabulary.margin(logits_MV[rows])
    return margin_M
