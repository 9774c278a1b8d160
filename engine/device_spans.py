"""The decided blocks of a forward as the device sees them.

Shape legend: T tokens of a forward, N decided blocks, B width of the widest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.cache.policy import BoolArray
from engine.decoding.places import Places
from engine.plan import DecodeSpans, IterationPlan
from engine.transfer import pack_to_device

_NUMBERS = ("slot", "start", "end", "step", "total_step", "prompt_len", "limit", "first_token", "guide_token")


@dataclass(frozen=True, slots=True)
class DeviceSpans:
    """See DecodeSpans for the fields. ``edits_N`` marks rows whose decoder edits, ``finished_N`` rows whose block is
    complete already, which are left as they are (None: none is). ``places`` are the positions that get a candidate."""

    slot_N: Tensor
    start_N: Tensor
    end_N: Tensor
    step_N: Tensor
    total_step_N: Tensor
    prompt_len_N: Tensor
    limit_N: Tensor
    first_token_N: Tensor
    guide_token_N: Tensor
    force_N: Tensor
    first_only_N: Tensor
    edits_N: Tensor
    places: Places
    finished_N: Tensor | None = None


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What the device needs of a plan: slot and position of each token, and the decided blocks."""

    slot_T: Tensor
    position_T: Tensor
    decoded: DeviceSpans


def upload(plan: IterationPlan, edits_N: BoolArray, device: torch.device) -> DevicePlan:
    """The plan on the device, in one copy."""
    decoded = plan.decoded
    arrays = [
        *plan.rows.tokens(),
        *(getattr(decoded, f"{name}_N") for name in _NUMBERS),
        decoded.force_N | decoded.first_only_N,
        decoded.first_only_N,
        edits_N,
        decoded.open_block_M,
        decoded.open_offset_M,
    ]
    slot_T, position_T, *columns, block_M, offset_M = pack_to_device(arrays, device)
    places = Places(block_M, offset_M, decoded.open_block_M)
    return DevicePlan(slot_T, position_T, DeviceSpans(*columns, places))


def every_place(decoded: DecodeSpans) -> tuple[np.ndarray, np.ndarray]:
    """Block and offset of all positions of the decided blocks, filled or not."""
    offset_B = np.arange(decoded.width)
    block_M, offset_M = np.nonzero(offset_B < (decoded.end_N - decoded.start_N)[:, None])
    return block_M, offset_M
