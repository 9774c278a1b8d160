"""A step's result as one tensor, so that it takes one copy to the host.

Shape legend: N decided blocks, B width of the widest, C columns of the tensor.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.attention.drift import DriftMeter
from engine.decoding.decoder import Candidates, Selection
from engine.decoding.dispatch import BlockRows
from engine.plan import LengthReading, StepResult
from engine.transfer import HostArray, HostCopy


def pack_result(
    blocks: BlockRows,
    candidates: Candidates,
    selection: Selection,
    reading: tuple[Tensor, ...] = (),
    drift: DriftMeter | None = None,
) -> Tensor:
    """Tokens, probabilities (their bits), readings (their bits) and verdicts side by side, ``[N, C]`` int64."""
    assert selection.done_N is not None
    tokens_NB = torch.where(selection.transfer_NB, selection.tokens_NB, blocks.tokens_NB)
    own_NB = selection.transfer_NB & (selection.tokens_NB == candidates.tokens_NB)
    probability_NB = candidates.probability_NB.masked_fill(~own_NB, torch.nan)
    numbers = reading if drift is None else (*reading, drift.drift())
    floats_NC = torch.cat((probability_NB, *(numbers_N[:, None] for numbers_N in numbers)), dim=1)
    return torch.cat((tokens_NB, floats_NC.view(torch.int32), selection.done_N[:, None]), dim=1)


def unpack_result(
    packed_NC: HostArray, width: int, *, reads_lengths: bool = False, reads_drift: bool = False
) -> StepResult:
    """The result in what :func:`pack_result` made; ``width`` is B."""
    floats = np.ascontiguousarray(packed_NC[:, width:-1].astype(np.int32)).view(np.float32)
    length = None
    if reads_lengths:
        eos_N, doubt_N, offset_N = floats[:, width : width + 3].T
        length = LengthReading(eos_N, doubt_N, offset_N.astype(np.int64))
    drift_N = floats[:, -1] if reads_drift else None
    return StepResult(packed_NC[:, :width], packed_NC[:, -1].astype(np.bool_), floats[:, :width], length, drift_N)


def host_result(blocks: BlockRows, candidates: Candidates, selection: Selection) -> StepResult:
    """What the host learns of a step without readings."""
    packed = HostCopy(pack_result(blocks, candidates, selection)).array()
    return unpack_result(packed, blocks.tokens_NB.shape[1])
