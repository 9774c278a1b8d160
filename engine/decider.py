"""From hidden states to what stands on the canvas: candidates, one decision per block, and how both are written down.

Shape legend: T tokens of a forward, N decided blocks, B width of the widest, D hidden size, C columns of a result.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.attention.drift import DriftMeter
from engine.canvas import Canvas
from engine.columns import Columns
from engine.decoding.dispatch import BlockRows, DecoderDispatch
from engine.decoding.divergence import DivergenceMemory
from engine.decoding.transform_dispatch import TransformDispatch, Users
from engine.device_spans import DeviceSpans
from engine.length_meter import LengthMeter, least_certain
from engine.models.spec import DiffusionLM
from engine.plan import DecodeSpans, StepResult
from engine.proposer import Proposer
from engine.step_results import pack_result
from engine.transfer import to_device


class Decider:
    """Decides on the blocks of a forward and writes to the canvas. Owns nothing; at most ``at_a_time`` positions have
    their logits held at once."""

    def __init__(
        self,
        model: DiffusionLM,
        canvas: Canvas,
        columns: Columns,
        dispatch: DecoderDispatch,
        transforms: TransformDispatch,
        divergences: DivergenceMemory,
        at_a_time: int,
    ) -> None:
        self._canvas = canvas
        self._columns = columns
        self._dispatch = dispatch
        self._transforms = transforms
        self._mask_token_id = model.spec.mask_token_id
        self._proposer = Proposer(model, columns, dispatch, transforms, divergences, at_a_time)
        self._lengths = LengthMeter(model, columns, at_a_time)

    def decide(
        self, decoded: DecodeSpans, spans: DeviceSpans, width: int, hidden_TD: Tensor, drift: DriftMeter | None = None
    ) -> Tensor:
        """One step of every block, as ``pack_result`` writes it down ``[N, C]``. ``width`` is B; nothing here waits for
        the device."""
        blocks = self._blocks(decoded, spans, width)
        users = self._users(decoded, spans)
        self._transforms.begin(users, blocks.slots_N)
        candidates = self._proposer.candidates(decoded, spans, blocks, users, hidden_TD)
        selection = self._dispatch.select(decoded.groups, candidates, blocks)
        reading: tuple[Tensor, ...] = ()
        if decoded.probes is not None and len(decoded.probes):
            eos_N = self._lengths.end_confidence(decoded.probes, blocks.slots_N, hidden_TD)
            selection = self._lengths.hold(decoded.probes, eos_N, selection)
            reading = (eos_N, *least_certain(blocks, candidates, selection))
        self._canvas.apply(blocks.slots_N, blocks.positions_NB, selection.transfer_NB, selection.tokens_NB)
        guided = np.flatnonzero(decoded.guide_slot_N >= 0)
        if len(guided):
            rows, twins = (to_device(array, hidden_TD.device) for array in (guided, decoded.guide_slot_N[guided]))
            self._canvas.apply(twins, blocks.positions_NB[rows], selection.transfer_NB[rows], selection.tokens_NB[rows])
        return pack_result(blocks, candidates, selection, reading, drift)

    def look_ahead(self, decoded: DecodeSpans, result: StepResult, hidden_TD: Tensor) -> None:
        """What the next step has to know of this one's logits, see :meth:`Proposer.look_ahead`."""
        self._proposer.look_ahead(decoded, result, hidden_TD)

    def _blocks(self, decoded: DecodeSpans, spans: DeviceSpans, width: int) -> BlockRows:
        slots_N1 = spans.slot_N[:, None]
        positions_NB = spans.start_N[:, None] + torch.arange(width, device=slots_N1.device)
        valid_NB = positions_NB < spans.end_N[:, None]
        spare = self._canvas.tokens.shape[1] - 1
        place_NB = positions_NB.where(valid_NB, spare)
        tokens_NB = self._canvas.gather(slots_N1, place_NB)
        fillable_NB = valid_NB & ~(spans.first_only_N[:, None] & (positions_NB > positions_NB[:, :1]))
        if spans.finished_N is not None:
            fillable_NB = fillable_NB & ~spans.finished_N[:, None]
        masked_NB = (tokens_NB == self._mask_token_id) & fillable_NB
        editable_NB = masked_NB
        if self._dispatch.rows_with("edits", decoded.groups, len(decoded)).any():
            free_NB = fillable_NB & ~self._canvas.given[slots_N1, place_NB]
            editable_NB = masked_NB | (free_NB & spans.edits_N[:, None])
        return BlockRows(
            slots_N=spans.slot_N,
            tokens_NB=tokens_NB,
            masked_NB=masked_NB,
            editable_NB=editable_NB,
            valid_NB=valid_NB,
            positions_NB=positions_NB,
            step_N=spans.step_N,
            total_step_N=spans.total_step_N,
            seed_N=self._columns.view("sampling", spans.slot_N)["seed"],
            force_N=spans.force_N,
            mask_token_id=self._mask_token_id,
            knob_floors=self._transforms.knob_floors(decoded.transforms_N, spans.slot_N, spans.total_step_N),
        )

    def _users(self, decoded: DecodeSpans, spans: DeviceSpans) -> Users:
        return Users(
            transforms_N=decoded.transforms_N,
            begins_N=decoded.step_N == 0,
            canvas_NL=self._canvas.rows(spans.slot_N if decoded.transforms_N.any() else spans.slot_N[:0]),
            prompt_len_N=spans.prompt_len_N,
            limit_N=spans.limit_N,
        )
