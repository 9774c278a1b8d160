"""One rank's share of a forward: embed, run the network, propose, decide, write the canvas.

Shape legend: T tokens of a forward, N decided blocks, D hidden size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from engine.attention.drift import DriftMeter
from engine.attention.sdpa import SDPAAttention
from engine.cache.kv_cache import KVCache
from engine.canvas import Canvas
from engine.columns import Columns
from engine.decider import Decider
from engine.decoding import DECODERS
from engine.decoding.decoder import Decoder
from engine.decoding.dispatch import DecoderDispatch
from engine.decoding.divergence import DivergenceMemory
from engine.decoding.sampler import SAMPLING_COLUMNS
from engine.decoding.transform_dispatch import TransformDispatch
from engine.device_spans import upload
from engine.forward_clock import ForwardClock
from engine.models.spec import DiffusionLM
from engine.parallel import ALONE
from engine.plan import Admission, Decoding, IterationPlan, StepResult
from engine.rank_check import RankCheck
from engine.registry import Registry
from engine.soft_embeddings import SoftEmbeddings
from engine.step_results import unpack_result
from engine.transfer import HostCopy, pack_to_device, to_device

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
        self._decider = Decider(
            model, self._canvas, self._columns, self._dispatch, self._transforms, self._divergences, at_a_time
        )
        self._soft = SoftEmbeddings(model, self._columns, self._transforms, at_a_time)

    @property
    def device(self) -> torch.device:
        return self._device

    @torch.inference_mode()
    def execute(self, plan: IterationPlan) -> StepResult:
        """Run one forward and apply its decisions to the canvas."""
        self._prepare(plan)
        decoded = plan.decoded
        on_device = upload(plan, self._dispatch.rows_with("edits", decoded.groups, len(decoded)), self._device)
        drift = self._drift_meter(plan)
        attention = SDPAAttention(self._cache, plan.rows, self._page_table, drift)
        clock = ForwardClock(self._device)
        embeddings_TD = self._model.embed(self._canvas.gather(on_device.slot_T, on_device.position_T))
        if plan.soft is not None:
            embeddings_TD = self._soft.add(embeddings_TD, plan.soft, decoded)
        hidden_TD = self._model(embeddings_TD, on_device.position_T, attention)
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

    def _prepare(self, plan: IterationPlan) -> None:
        """What comes before the forward: canvases that change their length, canvases that enter."""
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
        pages = admission.pages
        self._page_table[admission.slot, : len(pages)] = pages
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
