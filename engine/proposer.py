"""From hidden states to candidates: the output head at the open positions of the decoded blocks, and what decoders,
transforms and sampling ask of its logits. Work that only some requests ask for is done for those alone.

Shape legend: T tokens of a forward, N decoded blocks, B width of the widest, M open positions of the decoded blocks
(masked, or to be edited), V logit columns of this rank, D hidden size, K most probable tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from engine.cache.policy import BoolArray, IntArray
from engine.columns import Columns
from engine.decoding.decoder import Candidates
from engine.decoding.dispatch import BlockRows, DecoderDispatch, Trait
from engine.decoding.divergence import DivergenceMemory
from engine.decoding.guidance import guide
from engine.decoding.places import Chosen, Places
from engine.decoding.sampler import Drawing, Proposal, defer, draw, propose, propose_best, rank_tokens
from engine.decoding.transform_dispatch import TransformDispatch, Users
from engine.device_spans import DeviceSpans
from engine.models.spec import DiffusionLM
from engine.plan import DecodeSpans, StepResult
from engine.transfer import to_device

ASKED: Mapping[str, Trait] = MappingProxyType(
    {
        "entropy_M": "needs_entropy",
        "margin_M": "needs_margin",
        "divergence_M": "needs_divergence",
        "current_M": "edits",
        "ranked_MK": "num_ranked",
    }
)
"""What of a proposal is there only where a decoder asks for it, and how it asks."""


class Proposer:
    """Reads the columns of requests and the memory of divergences; owns nothing. At most ``at_a_time`` positions have
    their logits held at once."""

    def __init__(
        self,
        model: DiffusionLM,
        columns: Columns,
        dispatch: DecoderDispatch,
        transforms: TransformDispatch,
        divergences: DivergenceMemory,
        at_a_time: int,
    ) -> None:
        self._model = model
        self._vocabulary = model.vocabulary
        self._columns = columns
        self._dispatch = dispatch
        self._transforms = transforms
        self._divergences = divergences
        self._at_a_time = at_a_time
        self._device = next(model.parameters()).device
        self._mask_token_id = model.spec.mask_token_id
        self._logit_shift = model.spec.logit_shift

    def candidates(
        self, decoded: DecodeSpans, spans: DeviceSpans, blocks: BlockRows, users: Users, hidden_TD: Tensor
    ) -> Candidates:
        """One candidate for each open position of the decoded blocks."""
        shape = blocks.tokens_NB.shape
        candidates = Candidates(
            tokens_NB=blocks.tokens_NB.clone(),
            confidence_NB=torch.full(shape, -torch.inf, device=self._device),
            probability_NB=torch.zeros(shape, device=self._device),
            entropy_NB=torch.full(shape, torch.inf, device=self._device),
            margin_NB=torch.zeros(shape, device=self._device),
            divergence_NB=torch.full(shape, torch.inf, device=self._device),
            current_NB=torch.zeros(shape, device=self._device),
            ranked_NBK=blocks.tokens_NB.new_full((*shape, self._num_ranked(decoded)), -1),
        )
        asked = {name for name, trait in ASKED.items() if self._wanting(trait, decoded).any()}
        names = [name for name in Proposal.__slots__ if name not in ASKED or name in asked]
        best_is_enough = not asked and not _changes_or_draws(decoded)
        for start in range(0, len(spans.places), self._at_a_time):
            part = spans.places.part(start, start + self._at_a_time)
            if best_is_enough:
                proposal = self._propose_best(spans, part, hidden_TD)
            else:
                proposal = self._propose(decoded, spans, blocks, users, part, hidden_TD)
            for name in names:
                whole_NB = getattr(candidates, name.replace("_M", "_NB"))
                whole_NB[part.block_M, part.offset_M] = getattr(proposal, name)
        return candidates

    def _propose_best(self, spans: DeviceSpans, places: Places, hidden_TD: Tensor) -> Proposal:
        """The most probable tokens of some open positions, whose logits nobody else asks for."""
        token_M = spans.first_token_N[places.block_M] + places.offset_M - self._logit_shift
        return propose_best(self._model.best(hidden_TD[token_M], self._mask_token_id))

    def _propose(
        self,
        decoded: DecodeSpans,
        spans: DeviceSpans,
        blocks: BlockRows,
        users: Users,
        places: Places,
        hidden_TD: Tensor,
    ) -> Proposal:
        """Candidates of some open positions. Work that only some blocks ask for is done for those alone."""
        offset_M = places.offset_M - self._logit_shift
        logits_MV = self._logits(hidden_TD, spans.first_token_N[places.block_M] + offset_M)
        sampling = self._columns.view("sampling", blocks.slots_N[places.block_M])
        if (guided := places.where(decoded.guide_slot_N >= 0)) is not None:
            at = guided.index
            twins = self._logits(hidden_TD, spans.guide_token_N[places.block_M[at]] + offset_M[at])
            logits_MV[at] = guide(logits_MV[at], twins, sampling["guidance"][at])
        self._transforms.change(logits_MV, self._vocabulary, places, users, blocks)
        proposal = propose(
            logits_MV,
            self._vocabulary,
            self._mask_token_id,
            _index(places.where(self._wanting("needs_entropy", decoded))),
            _index(places.where(self._wanting("needs_margin", decoded))),
        )
        self._measure(decoded, blocks, places, logits_MV, proposal)
        proposal = self._rank(decoded, places, logits_MV, proposal)
        if (drawn := places.where(decoded.drawn_N)) is not None:
            at = drawn.index
            chosen = self._draw(decoded, blocks, places.only(drawn), logits_MV[at], _part(proposal, at))
            proposal = _replace(proposal, at, chosen)
        if (deferred := places.where(decoded.deferred_N)) is not None:
            at = deferred.index
            chosen = defer(logits_MV[at], self._vocabulary, _part(proposal, at), sampling["deferred"][at])
            proposal = _replace(proposal, at, chosen)
        return proposal

    def _measure(
        self, decoded: DecodeSpans, blocks: BlockRows, places: Places, logits_MV: Tensor, proposal: Proposal
    ) -> None:
        """Fill in what some decoders want to know of a distribution beside its candidate."""
        if (diverging := places.where(self._wanting("needs_divergence", decoded))) is not None:
            at = diverging.index
            block_M, offset_M = places.block_M[at], places.offset_M[at]
            proposal.divergence_M[at] = self._divergences.compare(
                blocks.slots_N[block_M], offset_M, blocks.positions_NB[block_M, 0], logits_MV[at]
            )
        if (edited := places.where(self._wanting("edits", decoded))) is not None:
            at = edited.index
            tokens_M = blocks.tokens_NB[places.block_M[at], places.offset_M[at]]
            current_M = self._vocabulary.probability_of(logits_MV[at], tokens_M)
            proposal.current_M[at] = current_M.masked_fill(tokens_M == self._mask_token_id, 0.0)

    def look_ahead(self, decoded: DecodeSpans, result: StepResult, hidden_TD: Tensor) -> None:
        """Prepare the divergences of the next step. They need the distributions of the same places at this one: of a
        block that is now finished, those of the next block, where this forward has computed it (the memory does not
        reach over a block's beginning with guidance or transforms)."""
        diverging_N = self._wanting("needs_divergence", decoded)
        if not diverging_N.any():
            return
        position_NB = decoded.start_N[:, None] + np.arange(result.tokens_NB.shape[1])
        open_NB = (result.tokens_NB == self._mask_token_id) & (position_NB < decoded.end_N[:, None])
        leaves_N = diverging_N & result.done_N & ~open_NB.any(axis=1)
        leaves_N &= (decoded.guide_slot_N < 0) & (decoded.transforms_N == 0) & (decoded.ahead_end_N > decoded.end_N)
        row_M, offset_M = _places(np.where(leaves_N, decoded.ahead_end_N - decoded.end_N, 0))
        token_M = decoded.first_token_N[row_M] + (decoded.end_N - decoded.start_N)[row_M] + offset_M
        for start in range(0, len(row_M), self._at_a_time):
            part = slice(start, start + self._at_a_time)
            logits_MV = self._logits(hidden_TD, self._tensor(token_M[part] - self._logit_shift))
            slots_M, places_M = self._tensor(decoded.slot_N[row_M[part]]), self._tensor(offset_M[part])
            self._divergences.store(slots_M, places_M, logits_MV)
        block_start_N = np.where(leaves_N, decoded.end_N, decoded.start_N)[diverging_N]
        self._divergences.settle(self._tensor(decoded.slot_N[diverging_N]), self._tensor(block_start_N))

    def _num_ranked(self, decoded: DecodeSpans) -> int:
        return min(self._dispatch.num_ranked(decoded.groups), self._vocabulary.size - 1)

    def _rank(self, decoded: DecodeSpans, places: Places, logits_MV: Tensor, proposal: Proposal) -> Proposal:
        """``proposal`` with the most probable tokens where a decoder asks for them."""
        ranking = _index(places.where(self._wanting("num_ranked", decoded)))
        ranked_MK = proposal.tokens_M.new_full((len(places), self._num_ranked(decoded)), -1)
        if ranking is not None:
            ranked_MK[ranking] = rank_tokens(
                logits_MV[ranking], self._vocabulary, self._mask_token_id, ranked_MK.shape[1]
            )
        return replace(proposal, ranked_MK=ranked_MK)

    def _draw(
        self, decoded: DecodeSpans, blocks: BlockRows, places: Places, logits_MV: Tensor, proposal: Proposal
    ) -> Proposal:
        """``proposal`` of positions of drawn blocks with their drawn tokens."""
        block_M = places.block_M
        sampling = self._columns.view("sampling", blocks.slots_N[block_M])
        drawing = Drawing(
            temperature_M=sampling["temperature"],
            top_k_M=sampling["top_k"],
            top_p_M=sampling["top_p"],
            seed_M=sampling["seed"],
            step_M=blocks.step_N[block_M],
            position_M=blocks.positions_NB[block_M, places.offset_M],
            noise_M=sampling["noise"],
            sampled_confidence_M=sampling["sampled_confidence"],
            filtered=_index(places.where(decoded.drawn_N & decoded.filtered_N)),
        )
        return draw(
            logits_MV,
            self._vocabulary,
            self._mask_token_id,
            drawing,
            proposal,
            _index(places.where(decoded.drawn_N & self._wanting("needs_entropy", decoded))),
            _index(places.where(decoded.drawn_N & self._wanting("needs_margin", decoded))),
        )

    def _wanting(self, trait: Trait, decoded: DecodeSpans) -> BoolArray:
        return self._dispatch.rows_with(trait, decoded.groups, len(decoded))

    def _logits(self, hidden_TD: Tensor, index_M: Tensor) -> Tensor:
        return self._model.compute_logits(hidden_TD[index_M]).float()

    def _tensor(self, array: IntArray | BoolArray) -> Tensor:
        return to_device(array, self._device)


def _changes_or_draws(decoded: DecodeSpans) -> bool:
    """Whether logits of some block are changed before a token is chosen, or the token is not the most probable one."""
    changed_N = (decoded.guide_slot_N >= 0) | (decoded.transforms_N != 0)
    return bool((changed_N | decoded.drawn_N | decoded.deferred_N).any())


def _places(length_N: IntArray) -> tuple[IntArray, IntArray]:
    """Row and offset of every place of spans of these lengths, laid end to end."""
    row_M = np.repeat(np.arange(len(length_N)), length_N)
    first_M = np.repeat(np.cumsum(length_N) - length_N, length_N)
    return row_M, np.arange(len(row_M)) - first_M


def _index(chosen: Chosen | None) -> Tensor | None:
    return None if chosen is None else chosen.index


def _part(proposal: Proposal, index: Tensor) -> Proposal:
    return Proposal(*(getattr(proposal, name)[index] for name in Proposal.__slots__))


def _replace(proposal: Proposal, index: Tensor, part: Proposal) -> Proposal:
    """``proposal`` with the entries at ``index`` taken from ``part``."""
    return Proposal(*(getattr(proposal, name).index_copy(0, index, getattr(part, name)) for name in Proposal.__slots__))
