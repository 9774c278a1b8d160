"""One rank's share of a forward: embed, run the network, propose, decide, write the canvas.

Shape legend: T tokens of a forward, N decided blocks, D hidden size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from engine.attention.drift import DriftMeter
from engine.attention.ways import SDPA, AttentionWay
from engine.cache.kv_cache import KVCache
from engine.cache.page_table import PageTable
from engine.canvas import Canvas
from engine.columns import Columns
from engine.decider import Decider
from engine.decoding import DECODERS
from engine.decoding.decoder import Decoder
from engine.decoding.dispatch import DecoderDispatch
from engine.decoding.divergence import DivergenceMemory
from engine.decoding.sampler import SAMPLING_COLUMNS
from engine.decoding.transform_dispatch import TransformDispatch
from engine.device_spans import DevicePlan, upload
from engine.forward_clock import ForwardClock
from engine.graphs import GraphBackend
from engine.models.spec import DiffusionLM
from engine.parallel import ALONE
from engine.plan import Admission, Decoding, IterationPlan, StepResult
from engine.rank_check import RankCheck
from engine.read_tokens import read_tokens
from engine.registry import Registry
from engine.soft_embeddings import SoftEmbeddings
from engine.step_graphs import RecordedStep, StepGraphs, StepParts, StepShape
from engine.step_results import unpack_result
from engine.transfer import HostCopy, pack_to_device, to_device

MAX_LOGITS = 2**27
"""Most logits that a rank holds at a time (512 MiB in float32); more masked positions are proposed for in turns."""


class ModelRunner:
    """Owns the rank's network, K/V storage, canvas and columns. Knows plans, not requests.

    With ``graphs`` steps of fixed shapes are recorded; then the last page of ``cache`` is no slot's.
    """

    def __init__(
        self,
        model: DiffusionLM,
        cache: KVCache,
        num_slots: int,
        max_len: int,
        decoders: Registry[Decoder] = DECODERS,
        check: RankCheck | None = None,
        attention: type[AttentionWay] = SDPA,
        graphs: GraphBackend | None = None,
    ) -> None:
        self._check = check or RankCheck(ALONE.world, 0)
        self._model = model
        self._cache = cache
        self._device = cache.keys.device
        self._mask_token_id = model.spec.mask_token_id
        self._table = PageTable(num_slots + 1, max_len, cache.page_size, self._device)
        self._attention = attention(cache, self._table)
        self._canvas = Canvas(num_slots + 1, max_len, self._mask_token_id, self._device)
        self._columns = Columns(num_slots + 1, self._device)
        self._columns.declare("sampling", SAMPLING_COLUMNS)
        self._dispatch = DecoderDispatch(self._columns, decoders)
        self._divergences = DivergenceMemory(self._columns, model.vocabulary)
        self._transforms = TransformDispatch(self._columns)
        at_a_time = max(MAX_LOGITS // model.vocabulary.widest, 1)
        self._decider = Decider(
            model, self._canvas, self._columns, self._dispatch, self._transforms, self._divergences, at_a_time
        )
        self._soft = SoftEmbeddings(model, self._columns, self._transforms, at_a_time)
        self._graphs = None if graphs is None else StepGraphs(self._step_parts(num_slots), graphs, num_slots)

    def warm_up(self, kind: StepShape) -> None:
        """Record steps of this kind, where steps are recorded at all."""
        if self._graphs is not None:
            self._graphs.warm_up(kind)

    @property
    def device(self) -> torch.device:
        return self._device

    @torch.inference_mode()
    def execute(self, plan: IterationPlan) -> StepResult:
        """Run one forward and apply its decisions to the canvas."""
        self._prepare(plan)
        if len(plan.decoded) and self._graphs is not None and (recorded := self._graphs.find(plan)) is not None:
            return self._replay(recorded, plan)
        return self._execute_once(plan) if plan.num_steps == 1 else self._execute_often(plan)

    def _execute_once(self, plan: IterationPlan) -> StepResult:
        decoded = plan.decoded
        on_device = self._upload(plan)
        drift = self._drift_meter(plan)
        attention = self._attention.bind(plan.rows, drift)
        clock = ForwardClock(self._device)
        embeddings_TD = self._model.embed(self._canvas.gather(on_device.slot_T, on_device.position_T))
        if plan.soft is not None:
            embeddings_TD = self._soft.add(embeddings_TD, plan.soft, decoded)
        hidden_TD = self._model(embeddings_TD, on_device.position_T, attention, on_device.read_M)
        clock.stop()
        if not len(decoded):
            return StepResult(np.empty((0, 0), np.int64), np.empty(0, np.bool_), np.empty((0, 0), np.float32))
        arriving = HostCopy(self._decider.decide(decoded, on_device.decoded, decoded.width, hidden_TD, drift))
        if plan.soft is not None:
            self._soft.refresh(hidden_TD, plan.soft, decoded)
        result = unpack_result(
            arriving.array(),
            decoded.width,
            reads_lengths=decoded.probes is not None and len(decoded.probes) > 0,
            reads_drift=drift is not None,
        )
        self._decider.look_ahead(decoded, result, hidden_TD)
        self._check.after_forward(self._canvas)
        return replace(result, forward_s=clock.seconds())

    def _execute_often(self, plan: IterationPlan) -> StepResult:
        """Several steps with the same rows. Blocks that are complete compute on and change nothing."""
        decoded, width = plan.decoded, plan.decoded.width
        on_device = self._upload(plan)
        attention, spans = self._attention.bind(plan.rows, None), on_device.decoded
        clock = ForwardClock(self._device)
        packed = []
        for _ in range(plan.num_steps):
            embeddings_TD = self._model.embed(self._canvas.gather(on_device.slot_T, on_device.position_T))
            hidden_TD = self._model(embeddings_TD, on_device.position_T, attention, on_device.read_M)
            packed.append(self._decider.decide(decoded, spans, width, hidden_TD))
            spans = spans.after(packed[-1], width, self._mask_token_id)
        clock.stop()
        return self._results(HostCopy(torch.stack(packed)), width, clock)

    def _upload(self, plan: IterationPlan) -> DevicePlan:
        groups, num_blocks = plan.decoded.groups, len(plan.decoded)
        edits_N, looks_ahead_N = (
            self._dispatch.rows_with(trait, groups, num_blocks) for trait in ("edits", "needs_divergence")
        )
        read_M = read_tokens(plan, looks_ahead_N, self._model.spec.logit_shift)
        return upload(plan, edits_N, read_M, self._device)

    def _replay(self, recorded: RecordedStep, plan: IterationPlan) -> StepResult:
        clock = ForwardClock(self._device)
        arriving = HostCopy(recorded.run(plan))
        clock.stop()
        return replace(self._results(arriving, plan.decoded.width, clock), replayed=True)

    def _results(self, arriving: HostCopy, width: int, clock: ForwardClock) -> StepResult:
        first, *later = (unpack_result(packed, width) for packed in arriving.array())
        for _ in range(1 + len(later)):
            self._check.after_forward(self._canvas)
        return replace(first, later=tuple(later), forward_s=clock.seconds())

    def _step_parts(self, spare_slot: int) -> StepParts:
        """What recorded steps work on. The spare slot has the last page and a canvas without masks."""
        last_page = self._cache.keys.shape[1] // self._cache.page_size - 1
        self._table.assign(spare_slot, np.array([last_page]))
        self._canvas.fill(spare_slot, 0 if self._mask_token_id else 1)
        return StepParts(
            model=self._model,
            canvas=self._canvas,
            columns=self._columns,
            dispatch=self._dispatch,
            decider=self._decider,
            table=self._table,
            attention=self._attention,
            spare_slot=spare_slot,
        )

    def _prepare(self, plan: IterationPlan) -> None:
        """What comes before the forward: canvases that change their length, canvases that enter."""
        for copy in plan.copies:
            self._cache.copy(copy.source, copy.target, copy.start, copy.end)
        for splice in plan.splices:
            tokens = to_device(splice.tokens, self._device)
            self._canvas.splice(splice.slot, splice.at, splice.removed, tokens)
            self._soft.resize(splice.slot, splice.canvas_len)
            self._divergences.forget(splice.slot)
        for admission in plan.admitted:
            self._admit(admission)

    def _drift_meter(self, plan: IterationPlan) -> DriftMeter | None:
        if plan.drift is None:
            return None
        token_M, block_M = pack_to_device((plan.drift.token_M, plan.drift.block_M), self._device)
        return DriftMeter(token_M, block_M, len(plan.decoded), self._model.ranks.tensor)

    def _admit(self, admission: Admission) -> None:
        self._table.assign(admission.slot, admission.pages)
        self._canvas.admit(admission.slot, to_device(admission.tokens, self._device))
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
