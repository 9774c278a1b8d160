"""What the network is fed at masked positions beside the mask's embedding, for requests with input transforms.

Shape legend: T tokens of a forward, P masked positions that it computes, V logit columns of this rank, D hidden size.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.cache.policy import IntArray
from engine.columns import CellView, Columns, ColumnSpec
from engine.decoding.guidance import guide
from engine.decoding.transform_dispatch import TransformDispatch
from engine.models.spec import DiffusionLM
from engine.plan import DecodeSpans, SoftInputs
from engine.transfer import to_device

PREFIX = "soft"


class SoftEmbeddings:
    """Keeps one vector per masked position (``soft`` columns, in the dtype of the weights, for the slots that have
    needed them). A guided request and its twin share them: they come from the guided logits and are fed to both, so
    that the two passes differ in the prompt alone."""

    def __init__(self, model: DiffusionLM, columns: Columns, transforms: TransformDispatch, at_a_time: int) -> None:
        self._model = model
        self._columns = columns
        self._transforms = transforms
        self._at_a_time = at_a_time
        self._users: set[int] = set()

    def admit(self, slot: int, canvas_len: int) -> None:
        """Nothing is known of the request in ``slot`` yet."""
        dtype = next(self._model.parameters()).dtype
        spec = ColumnSpec(dtype, width=self._model.spec.hidden_size, per_position=True)
        self._columns.declare(PREFIX, {"added": spec}, canvas_len)
        self._columns.write(PREFIX, slot, {})
        self._users.add(slot)

    def release(self, slot: int) -> None:
        """Another request begins in ``slot``, which may not need vectors."""
        self._users.discard(slot)

    def resize(self, slot: int, canvas_len: int) -> None:
        """The canvas in ``slot`` has changed its length: positions are not what they were, nothing is known of them."""
        if slot in self._users:
            self.admit(slot, canvas_len)

    def add(self, embeddings_TD: Tensor, soft: SoftInputs, decoded: DecodeSpans) -> Tensor:
        """``embeddings_TD`` with what is known of the masked positions added, in place."""
        device = embeddings_TD.device
        added_PD = self._cells(soft, decoded, device)["added"]
        embeddings_TD[_tensor(soft.token_P, device)] += added_PD
        twins = np.flatnonzero(soft.guide_token_P >= 0)
        if len(twins):
            embeddings_TD[_tensor(soft.guide_token_P[twins], device)] += added_PD[_tensor(twins, device)]
        return embeddings_TD

    def refresh(self, hidden_TD: Tensor, soft: SoftInputs, decoded: DecodeSpans) -> None:
        """Replace what is known of the positions that this forward computed."""
        soft = soft.part(np.flatnonzero(soft.known_P))
        for start in range(0, len(soft), self._at_a_time):
            part = soft.part(slice(start, start + self._at_a_time))
            weights_PV = self._mixture(hidden_TD, part, decoded)
            self._cells(part, decoded, hidden_TD.device).store("added", self._model.mix(weights_PV))

    def _mixture(self, hidden_TD: Tensor, soft: SoftInputs, decoded: DecodeSpans) -> Tensor:
        device = hidden_TD.device
        block_P = soft.block_P
        slots_P = _tensor(decoded.slot_N[block_P], device)
        logits_PV = self._logits(hidden_TD, soft.token_P)
        guided = np.flatnonzero(soft.guide_token_P >= 0)
        if len(guided):
            rows = _tensor(guided, device)
            twins = self._logits(hidden_TD, soft.guide_token_P[guided])
            scale = self._columns.view("sampling", slots_P[rows])["guidance"]
            logits_PV[rows] = guide(logits_PV[rows], twins, scale)
        total_step_P = _tensor(decoded.total_step_N[block_P], device)
        return self._transforms.mixture(
            logits_PV, self._model.vocabulary, decoded.transforms_N[block_P], slots_P, total_step_P
        )

    def _logits(self, hidden_TD: Tensor, token_P: IntArray) -> Tensor:
        index_P = _tensor(token_P - self._model.spec.logit_shift, hidden_TD.device)
        return self._model.compute_logits(hidden_TD[index_P]).float()

    def _cells(self, soft: SoftInputs, decoded: DecodeSpans, device: torch.device) -> CellView:
        slots_P = _tensor(decoded.slot_N[soft.block_P], device)
        return self._columns.cells(PREFIX, slots_P, _tensor(soft.position_P, device))


def _tensor(array: IntArray, device: torch.device) -> Tensor:
    return to_device(array, device)
