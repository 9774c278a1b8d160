"""One rank's share of a forward: embed, run the network, propose, decide, write the canvas.

Shape legend: T tokens of a forward, N decoded blocks, B width of the widest, M masked positions of the decoded
blocks, V logit columns, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.attention.sdpa import SDPAAttention
from engine.cache.kv_cache import KVCache
from engine.cache.policy import BoolArray, IntArray
from engine.canvas import Canvas
from engine.columns import Columns
from engine.decoding import DECODERS
from engine.decoding.decoder import Candidates, Decoder
from engine.decoding.dispatch import BlockRows, DecoderDispatch
from engine.decoding.sampler import SAMPLING_COLUMNS, Drawing, Proposal, defer, draw, mask_listed, propose
from engine.decoding.transforms import guide
from engine.models.spec import DiffusionLM
from engine.plan import Admission, DecodeSpans, IterationPlan, StepResult
from engine.registry import Registry

MAX_LOGITS = 2**27
"""Most logits held at a time (512 MiB in float32); more masked positions are proposed for in turns."""


@dataclass(frozen=True, slots=True)
class _Masked:
    """The masked positions of the decoded blocks: block and offset of each, and the numpy copy of the block index."""

    block_M: Tensor
    offset_M: Tensor

    def __len__(self) -> int:
        return self.block_M.shape[0]

    def part(self, start: int, end: int) -> _Masked:
        return _Masked(self.block_M[start:end], self.offset_M[start:end])


class ModelRunner:
    """Owns the rank's network, K/V storage, canvas and columns. Knows plans, not requests."""

    def __init__(
        self,
        model: DiffusionLM,
        cache: KVCache,
        num_slots: int,
        max_len: int,
        decoders: Registry[Decoder] = DECODERS,
    ) -> None:
        self._model = model
        self._cache = cache
        self._device = cache.keys.device
        self._mask_token_id = model.spec.mask_token_id
        self._logit_shift = model.spec.logit_shift
        self._page_table = np.full((num_slots, -(-max_len // cache.page_size)), -1, np.int64)
        self._canvas = Canvas(num_slots, max_len, self._mask_token_id, self._device)
        self._columns = Columns(num_slots, self._device)
        self._columns.declare("sampling", SAMPLING_COLUMNS)
        self._dispatch = DecoderDispatch(self._columns, decoders)

    @torch.inference_mode()
    def execute(self, plan: IterationPlan) -> StepResult:
        """Run one forward and apply its decisions to the canvas."""
        for admission in plan.admitted:
            self._admit(admission)
        slot_T, position_T = plan.rows.tokens()
        positions_T = self._tensor(position_T)
        tokens_T = self._canvas.gather(self._tensor(slot_T), positions_T)
        attention = SDPAAttention(self._cache, plan.rows, self._page_table)
        hidden_TD = self._model(self._model.embed(tokens_T), positions_T, attention)
        if not len(plan.decoded):
            return StepResult(np.empty((0, 0), np.int64), np.empty(0, np.bool_))
        return self._decide(plan.decoded, hidden_TD)

    def _admit(self, admission: Admission) -> None:
        pages = admission.pages
        self._page_table[admission.slot, : len(pages)] = pages
        self._canvas.admit(admission.slot, torch.from_numpy(admission.tokens))
        if admission.decoder is not None:
            assert admission.decoder_knobs is not None
            assert admission.sampling_knobs is not None
            self._dispatch.prepare(admission.decoder)
            self._columns.write(f"knobs.{admission.decoder}", admission.slot, admission.decoder_knobs)
            self._columns.write(f"state.{admission.decoder}", admission.slot, {})
            self._columns.write("sampling", admission.slot, admission.sampling_knobs)

    def _decide(self, decoded: DecodeSpans, hidden_TD: Tensor) -> StepResult:
        blocks = self._blocks(decoded)
        candidates = self._candidates(decoded, blocks, hidden_TD)
        selection = self._dispatch.select(decoded.groups, candidates, blocks)
        self._canvas.apply(blocks.slots_N, blocks.positions_NB, selection.transfer_NB, selection.tokens_NB)
        guided = np.flatnonzero(decoded.guide_slot_N >= 0)
        if len(guided):
            rows = self._tensor(guided)
            twins = self._tensor(decoded.guide_slot_N[guided])
            self._canvas.apply(twins, blocks.positions_NB[rows], selection.transfer_NB[rows], selection.tokens_NB[rows])
        assert selection.done_N is not None
        tokens_NB = torch.where(selection.transfer_NB, selection.tokens_NB, blocks.tokens_NB)
        result = torch.cat((tokens_NB, selection.done_N[:, None]), dim=1).cpu().numpy()
        return StepResult(result[:, :-1], result[:, -1].astype(np.bool_))

    def _blocks(self, decoded: DecodeSpans) -> BlockRows:
        width = int((decoded.end_N - decoded.start_N).max())
        position_NB = decoded.start_N[:, None] + np.arange(width)
        valid_NB = self._tensor(position_NB < decoded.end_N[:, None])
        slots_N = self._tensor(decoded.slot_N)
        positions_NB = self._tensor(position_NB)
        spare = self._canvas.tokens.shape[1] - 1
        tokens_NB = self._canvas.gather(slots_N[:, None], positions_NB.where(valid_NB, spare))
        first_only_N1 = self._tensor(decoded.first_only_N)[:, None]
        fillable_NB = valid_NB & ~(first_only_N1 & (positions_NB > positions_NB[:, :1]))
        return BlockRows(
            slots_N=slots_N,
            tokens_NB=tokens_NB,
            masked_NB=(tokens_NB == self._mask_token_id) & fillable_NB,
            valid_NB=valid_NB,
            positions_NB=positions_NB,
            step_N=self._tensor(decoded.step_N),
            seed_N=self._columns.view("sampling", slots_N)["seed"],
            force_N=self._tensor(decoded.force_N | decoded.first_only_N),
        )

    def _candidates(self, decoded: DecodeSpans, blocks: BlockRows, hidden_TD: Tensor) -> Candidates:
        tokens_NB = blocks.tokens_NB.clone()
        confidence_NB = torch.full(tokens_NB.shape, -torch.inf, device=self._device)
        entropy_NB = torch.full(tokens_NB.shape, torch.inf, device=self._device)
        margin_NB = torch.zeros(tokens_NB.shape, device=self._device)
        block_M, offset_M = blocks.masked_NB.nonzero(as_tuple=True)
        masked = _Masked(block_M, offset_M)
        at_a_time = max(MAX_LOGITS // self._model.spec.vocab_size, 1)
        for start in range(0, len(masked), at_a_time):
            part = masked.part(start, start + at_a_time)
            proposal = self._propose(decoded, blocks, part, hidden_TD)
            where = (part.block_M, part.offset_M)
            tokens_NB[where] = proposal.tokens_M
            confidence_NB[where] = proposal.confidence_M
            entropy_NB[where] = proposal.entropy_M
            margin_NB[where] = proposal.margin_M
        return Candidates(tokens_NB, confidence_NB, entropy_NB, margin_NB)

    def _propose(self, decoded: DecodeSpans, blocks: BlockRows, masked: _Masked, hidden_TD: Tensor) -> Proposal:
        """Candidates of some masked positions. Work that only some blocks ask for is done for those alone."""
        first_N = self._tensor(decoded.first_token_N)
        offset_M = masked.offset_M - self._logit_shift
        logits_MV = self._logits(hidden_TD, first_N[masked.block_M] + offset_M)
        sampling = self._columns.view("sampling", blocks.slots_N[masked.block_M])
        guided = self._positions(masked, decoded.guide_slot_N >= 0)
        if guided is not None:
            twin_N = self._tensor(decoded.guide_token_N)
            twins = self._logits(hidden_TD, twin_N[masked.block_M[guided]] + offset_M[guided])
            logits_MV[guided] = guide(logits_MV[guided], twins, sampling["guidance"][guided])
        banned = self._positions(masked, decoded.banned_N)
        if banned is not None:
            logits_MV[banned] = mask_listed(logits_MV[banned], sampling["banned"][banned])
        proposal = propose(
            logits_MV,
            self._mask_token_id,
            self._positions(masked, self._dispatch.rows_needing("needs_entropy", decoded.groups, len(decoded))),
            self._positions(masked, self._dispatch.rows_needing("needs_margin", decoded.groups, len(decoded))),
        )
        drawn = self._positions(masked, decoded.drawn_N)
        if drawn is not None:
            proposal = _replace(proposal, drawn, self._draw(logits_MV[drawn], blocks, masked, drawn))
        deferred = self._positions(masked, decoded.deferred_N)
        if deferred is not None:
            chosen = Proposal(*(getattr(proposal, name)[deferred] for name in Proposal.__slots__))
            proposal = _replace(proposal, deferred, defer(logits_MV[deferred], chosen, sampling["deferred"][deferred]))
        return proposal

    def _draw(self, logits_MV: Tensor, blocks: BlockRows, masked: _Masked, drawn: Tensor) -> Proposal:
        block_M = masked.block_M[drawn]
        sampling = self._columns.view("sampling", blocks.slots_N[block_M])
        drawing = Drawing(
            temperature_M=sampling["temperature"],
            top_k_M=sampling["top_k"],
            top_p_M=sampling["top_p"],
            seed_M=sampling["seed"],
            step_M=blocks.step_N[block_M],
            position_M=blocks.positions_NB[block_M, masked.offset_M[drawn]],
            noise_M=sampling["noise"],
            sampled_confidence_M=sampling["sampled_confidence"],
        )
        return draw(logits_MV, self._mask_token_id, drawing)

    def _logits(self, hidden_TD: Tensor, index_M: Tensor) -> Tensor:
        return self._model.compute_logits(hidden_TD[index_M]).float()

    def _positions(self, masked: _Masked, wanted_N: BoolArray) -> Tensor | None:
        """Indices of the masked positions whose block is wanted, None without any (decided on the host)."""
        if not wanted_N.any():
            return None
        return self._tensor(wanted_N)[masked.block_M].nonzero(as_tuple=True)[0]

    def _tensor(self, array: IntArray | BoolArray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _replace(proposal: Proposal, index: Tensor, part: Proposal) -> Proposal:
    """``proposal`` with the entries at ``index`` taken from ``part``."""
    return Proposal(*(getattr(proposal, name).index_copy(0, index, getattr(part, name)) for name in Proposal.__slots__))
