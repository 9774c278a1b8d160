"""One rank's share of a forward: embed, run the network, propose, decide, write the canvas.

Shape legend: T tokens of a forward, N decoded blocks, B width of the widest, D hidden size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from engine.attention.drift import DriftMeter
from engine.attention.sdpa import SDPAAttention
from engine.cache.kv_cache import KVCache
from engine.cache.policy import BoolArray, IntArray
from engine.canvas import Canvas
from engine.columns import Columns
from engine.decoding import DECODERS
from engine.decoding.decoder import Candidates, Decoder, Selection
from engine.decoding.dispatch import BlockRows, DecoderDispatch
from engine.decoding.divergence import DivergenceMemory
from engine.decoding.sampler import SAMPLING_COLUMNS
from engine.decoding.transform_dispatch import TransformDispatch, Users
from engine.forward_clock import ForwardClock
from engine.length_meter import LengthMeter, least_certain
from engine.models.spec import DiffusionLM
from engine.parallel import ALONE
from engine.plan import Admission, DecodeSpans, Decoding, IterationPlan, LengthReading, StepResult
from engine.proposer import Proposer
from engine.rank_check import RankCheck
from engine.registry import Registry
from engine.soft_embeddings import SoftEmbeddings

MAX_LOGITS = 2**27
"""Most logits that a rank holds at a time (512 MiB in float32); more masked positions are proposed for in turns."""


class ModelRunner:
    """Owns the rank's network, K/V storage, canvas and columns. Knows plans, not requests."""

    def __init__(
        self,
        model: DiffusionLM,
        cache: KVCache,
        num_slots: int,
        max_len: int,
        decoders: Registry[Decoder] = DECODERS,
        check: RankCheck | None = None,
    ) -> None:
        self._check = check or RankCheck(ALONE.world, 0)
        self._model = model
        self._cache = cache
        self._device = cache.keys.device
        self._mask_token_id = model.spec.mask_token_id
        self._page_table = np.full((num_slots, -(-max_len // cache.page_size)), -1, np.int64)
        self._canvas = Canvas(num_slots, max_len, self._mask_token_id, self._device)
        self._columns = Columns(num_slots, self._device)
        self._columns.declare("sampling", SAMPLING_COLUMNS)
        self._dispatch = DecoderDispatch(self._columns, decoders)
        self._divergences = DivergenceMemory(self._columns, model.vocabulary)
        self._transforms = TransformDispatch(self._columns)
        at_a_time = max(MAX_LOGITS // model.vocabulary.widest, 1)
        self._proposer = Proposer(model, self._columns, self._dispatch, self._transforms, self._divergences, at_a_time)
        self._lengths = LengthMeter(model, self._columns, at_a_time)
        self._soft = SoftEmbeddings(model, self._columns, self._transforms, at_a_time)

    @torch.inference_mode()
    def execute(self, plan: IterationPlan) -> StepResult:
        """Run one forward and apply its decisions to the canvas."""
        for splice in plan.splices:
            self._canvas.splice(splice.slot, splice.at, splice.removed, torch.from_numpy(splice.tokens))
            self._soft.resize(splice.slot, splice.canvas_len)
            self._divergences.forget(splice.slot)
        for admission in plan.admitted:
            self._admit(admission)
        slot_T, position_T = plan.rows.tokens()
        positions_T = self._tensor(position_T)
        tokens_T = self._canvas.gather(self._tensor(slot_T), positions_T)
        drift = None
        if plan.drift is not None:
            measured = (self._tensor(plan.drift.token_M), self._tensor(plan.drift.block_M))
            drift = DriftMeter(*measured, len(plan.decoded), self._model.ranks.tensor)
        attention = SDPAAttention(self._cache, plan.rows, self._page_table, drift)
        clock = ForwardClock(self._device)
        embeddings_TD = self._model.embed(tokens_T)
        if plan.soft is not None:
            embeddings_TD = self._soft.add(embeddings_TD, plan.soft, plan.decoded)
        hidden_TD = self._model(embeddings_TD, positions_T, attention)
        clock.stop()
        if not len(plan.decoded):
            return StepResult(np.empty((0, 0), np.int64), np.empty(0, np.bool_), np.empty((0, 0), np.float32))
        result = self._decide(plan.decoded, hidden_TD, drift)
        if plan.soft is not None:
            self._soft.refresh(hidden_TD, plan.soft, plan.decoded)
        self._check.after_forward(self._canvas)
        return replace(result, forward_s=clock.seconds())

    def _admit(self, admission: Admission) -> None:
        pages = admission.pages
        self._page_table[admission.slot, : len(pages)] = pages
        self._canvas.admit(admission.slot, torch.from_numpy(admission.tokens))
        if admission.decoding is not None:
            self._admit_decoding(admission.slot, admission.decoding)
            self._soft.release(admission.slot)
            if self._transforms.changes_inputs(admission.decoding.transform_knobs):
                self._soft.admit(admission.slot, len(admission.tokens))

    def _admit_decoding(self, slot: int, decoding: Decoding) -> None:
        self._columns.write("sampling", slot, decoding.sampling_knobs)
        decoder = self._dispatch.prepare(decoding.decoder, decoding.block_length)
        self._columns.write(f"knobs.{decoding.decoder}", slot, decoding.decoder_knobs)
        self._columns.write(f"state.{decoding.decoder}", slot, {})
        if decoder.needs_divergence:
            self._divergences.admit(slot, decoding.block_length)
        self._transforms.admit(slot, decoding.transform_knobs, decoding.block_length)

    def _decide(self, decoded: DecodeSpans, hidden_TD: Tensor, drift: DriftMeter | None) -> StepResult:
        blocks = self._blocks(decoded)
        users = self._users(decoded, blocks)
        self._transforms.begin(users, blocks.slots_N)
        candidates = self._proposer.candidates(decoded, blocks, users, hidden_TD)
        selection = self._dispatch.select(decoded.groups, candidates, blocks)
        reading: tuple[Tensor, ...] = ()
        if decoded.probes is not None and len(decoded.probes):
            eos_N = self._lengths.end_confidence(decoded.probes, blocks.slots_N, hidden_TD)
            selection = self._lengths.hold(decoded.probes, eos_N, selection)
            reading = (eos_N, *least_certain(blocks, candidates, selection))
        self._canvas.apply(blocks.slots_N, blocks.positions_NB, selection.transfer_NB, selection.tokens_NB)
        guided = np.flatnonzero(decoded.guide_slot_N >= 0)
        if len(guided):
            rows = self._tensor(guided)
            twins = self._tensor(decoded.guide_slot_N[guided])
            self._canvas.apply(twins, blocks.positions_NB[rows], selection.transfer_NB[rows], selection.tokens_NB[rows])
        result = host_result(blocks, candidates, selection, reading, drift)
        self._proposer.look_ahead(decoded, result, hidden_TD)
        return result

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
        masked_NB = (tokens_NB == self._mask_token_id) & fillable_NB
        editable_NB = masked_NB
        editing_N = self._dispatch.rows_with("edits", decoded.groups, len(decoded))
        if editing_N.any():
            given_NB = self._canvas.given[slots_N[:, None], positions_NB.where(valid_NB, spare)]
            editable_NB = masked_NB | (fillable_NB & ~given_NB & self._tensor(editing_N)[:, None])
        total_step_N = self._tensor(decoded.total_step_N)
        return BlockRows(
            slots_N=slots_N,
            tokens_NB=tokens_NB,
            masked_NB=masked_NB,
            editable_NB=editable_NB,
            valid_NB=valid_NB,
            positions_NB=positions_NB,
            step_N=self._tensor(decoded.step_N),
            total_step_N=total_step_N,
            seed_N=self._columns.view("sampling", slots_N)["seed"],
            force_N=self._tensor(decoded.force_N | decoded.first_only_N),
            mask_token_id=self._mask_token_id,
            knob_floors=self._transforms.knob_floors(decoded.transforms_N, slots_N, total_step_N),
        )

    def _users(self, decoded: DecodeSpans, blocks: BlockRows) -> Users:
        return Users(
            transforms_N=decoded.transforms_N,
            begins_N=decoded.step_N == 0,
            canvas_NL=self._canvas.rows(blocks.slots_N if decoded.transforms_N.any() else blocks.slots_N[:0]),
            prompt_len_N=self._tensor(decoded.prompt_len_N),
            limit_N=self._tensor(decoded.limit_N),
        )

    def _tensor(self, array: IntArray | BoolArray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def host_result(
    blocks: BlockRows,
    candidates: Candidates,
    selection: Selection,
    reading: tuple[Tensor, ...] = (),
    drift: DriftMeter | None = None,
) -> StepResult:
    """What the host learns, in one copy: tokens, probabilities (their bits), verdicts and readings side by side."""
    assert selection.done_N is not None
    width = blocks.tokens_NB.shape[1]
    tokens_NB = torch.where(selection.transfer_NB, selection.tokens_NB, blocks.tokens_NB)
    own_NB = selection.transfer_NB & (selection.tokens_NB == candidates.tokens_NB)
    probability_NB = candidates.probability_NB.masked_fill(~own_NB, torch.nan)
    numbers = reading if drift is None else (*reading, drift.drift())
    floats_NC = torch.cat((probability_NB, *(numbers_N[:, None] for numbers_N in numbers)), dim=1)
    columns = (tokens_NB, floats_NC.view(torch.int32), selection.done_N[:, None])
    host = torch.cat(columns, dim=1).cpu().numpy()
    floats = np.ascontiguousarray(host[:, width:-1].astype(np.int32)).view(np.float32)
    length = None
    if reading:
        eos_N, doubt_N, offset_N = floats[:, width : width + 3].T
        length = LengthReading(eos_N, doubt_N, offset_N.astype(np.int64))
    drift_N = floats[:, -1] if drift is not None else None
    return StepResult(host[:, :width], host[:, -1].astype(np.bool_), floats[:, :width], length, drift_N)
