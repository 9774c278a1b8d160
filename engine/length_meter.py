"""What a rank measures of canvases that may grow, and the blocks that it holds back until theirs is long enough.

Shape legend: N decided blocks, P probes among them, M generated positions of the probed canvases, G width of the
longest, V logit columns of this rank, T tokens of a forward, D hidden size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from engine.cache.policy import BoolArray, FloatArray, IntArray
from engine.columns import Columns
from engine.decoding.decoder import Candidates, Selection
from engine.decoding.dispatch import BlockRows
from engine.decoding.end_of_text import end_confidence, expected_ends
from engine.decoding.guidance import guide
from engine.models.spec import DiffusionLM
from engine.plan import LengthProbes
from engine.transfer import to_device


class LengthMeter:
    """Reads the model's own logits (guided ones with guidance, no transform applied) over the generated part of probed
    canvases, the logits of at most ``at_a_time`` positions at a time."""

    def __init__(self, model: DiffusionLM, columns: Columns, at_a_time: int) -> None:
        self._model = model
        self._columns = columns
        self._at_a_time = at_a_time
        self._eos_ids = sorted(model.spec.stop_token_ids)

    def end_confidence(self, probes: LengthProbes, slots_N: Tensor, hidden_TD: Tensor) -> Tensor:
        """How sure the model is of the end in the canvas of every probed block, nan for the others ``[N]``."""
        device = hidden_TD.device
        eos_ids_K = to_device(torch.tensor(self._eos_ids, dtype=torch.int64), device)
        length_P = probes.end_P - probes.start_P
        probe_M = np.repeat(np.arange(len(probes)), length_P)
        offset_M = np.arange(len(probe_M)) - (np.cumsum(length_P) - length_P)[probe_M]
        shape = (len(probes), int(length_P.max()))
        expected_PG = torch.zeros(shape, dtype=torch.bool, device=device)
        probability_PG = torch.zeros(shape, device=device)
        for start in range(0, len(probe_M), self._at_a_time):
            part = slice(start, start + self._at_a_time)
            places = _tensor(probe_M[part], device), _tensor(offset_M[part], device)
            logits_MV = self._logits(probes, slots_N, probe_M[part], offset_M[part], hidden_TD)
            expected_PG[places], probability_PG[places] = expected_ends(logits_MV, self._model.vocabulary, eos_ids_K)
        eos_N = torch.full((len(slots_N),), torch.nan, device=device)
        window_P = _tensor(probes.window_P, device)
        eos_N[_tensor(probes.block_P, device)] = end_confidence(expected_PG, probability_PG, window_P)
        return eos_N

    def hold(self, probes: LengthProbes, eos_N: Tensor, selection: Selection) -> Selection:
        """The selection without the blocks whose canvas is still too short."""
        below_N = torch.full_like(eos_N, -torch.inf)
        below_N[_tensor(probes.block_P, eos_N.device)] = _tensor(probes.hold_below_P, eos_N.device)
        return replace(selection, transfer_NB=selection.transfer_NB & ~(eos_N < below_N)[:, None])

    def _logits(
        self, probes: LengthProbes, slots_N: Tensor, probe_M: IntArray, offset_M: IntArray, hidden_TD: Tensor
    ) -> Tensor:
        device = hidden_TD.device
        shifted_M = offset_M - self._model.spec.logit_shift
        logits_MV = self._compute(hidden_TD, probes.first_token_P[probe_M] + shifted_M)
        twin_M = probes.guide_token_P[probe_M]
        guided = np.flatnonzero(twin_M >= 0)
        if len(guided):
            slots_M = slots_N[_tensor(probes.block_P[probe_M[guided]], device)]
            scale_M = self._columns.view("sampling", slots_M)["guidance"]
            twins_MV = self._compute(hidden_TD, (twin_M + shifted_M)[guided])
            index = _tensor(guided, device)
            logits_MV[index] = guide(logits_MV[index], twins_MV, scale_M)
        return logits_MV

    def _compute(self, hidden_TD: Tensor, token_M: IntArray) -> Tensor:
        return self._model.compute_logits(hidden_TD[_tensor(token_M, hidden_TD.device)]).float()


def least_certain(blocks: BlockRows, candidates: Candidates, selection: Selection) -> tuple[Tensor, Tensor]:
    """Of the masks that stay in each block the least probable candidate: its probability (nan where no mask stays) and
    its offset as float32, ``[N]`` each. Ties go to the smaller offset."""
    left_NB = blocks.masked_NB & ~selection.transfer_NB
    doubt_NB = candidates.probability_NB.masked_fill(~left_NB, torch.inf)
    doubt_N = doubt_NB.amin(dim=1).masked_fill(~left_NB.any(dim=1), torch.nan)
    return doubt_N, doubt_NB.argmin(dim=1).float()


def _tensor(array: IntArray | BoolArray | FloatArray, device: torch.device) -> Tensor:
    return to_device(array, device)
