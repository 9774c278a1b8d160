"""The decided blocks of a forward as the device sees them.

Shape legend: T tokens of a forward, N decided blocks, B width of the widest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.cache.policy import BoolArray, IntArray
from engine.decoding.places import Places
from engine.plan import DecodeSpans, IterationPlan
from engine.transfer import pack_to_device

_NUMBERS = ("slot", "start", "end", "step", "total_step", "prompt_len", "limit", "first_token", "guide_token")
_FLAGS = ("force", "first_only", "edits")
_NOTHING = np.empty(0, np.int64)


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

    def after(self, packed_NC: Tensor, width: int, mask_token_id: int) -> DeviceSpans:
        """Where the blocks stand after a step with this result: those that are complete stay as they are."""
        outside_NB = torch.arange(width, device=packed_NC.device) >= (self.end_N - self.start_N)[:, None]
        filled_N = ((packed_NC[:, :width] != mask_token_id) | outside_NB).all(dim=1)
        complete_N = filled_N & (packed_NC[:, -1] != 0)
        finished_N = complete_N if self.finished_N is None else complete_N | self.finished_N
        going_N = 1 if self.finished_N is None else (~self.finished_N).long()
        return replace(
            self, step_N=self.step_N + going_N, total_step_N=self.total_step_N + going_N, finished_N=finished_N
        )


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What the device needs of a plan: slot and position of each token, the tokens whose last hidden state is read
    (None: all), and the decided blocks."""

    slot_T: Tensor
    position_T: Tensor
    read_M: Tensor | None
    decoded: DeviceSpans


def upload(plan: IterationPlan, edits_N: BoolArray, read_M: IntArray | None, device: torch.device) -> DevicePlan:
    """The plan on the device, in one copy."""
    decoded = plan.decoded
    block_M, offset_M = wanted_places(plan)
    arrays = [
        *plan.rows.tokens(),
        *(getattr(decoded, f"{name}_N") for name in _NUMBERS),
        decoded.force_N | decoded.first_only_N,
        decoded.first_only_N,
        edits_N,
        block_M,
        offset_M,
        _NOTHING if read_M is None else read_M,
    ]
    slot_T, position_T, *columns, blocks, offsets, read = pack_to_device(arrays, device)
    places = Places(blocks, offsets, block_M)
    named = {f"{name}_N": column_N for name, column_N in zip((*_NUMBERS, *_FLAGS), columns, strict=True)}
    return DevicePlan(slot_T, position_T, None if read_M is None else read, DeviceSpans(**named, places=places))


def wanted_places(plan: IterationPlan) -> tuple[IntArray, IntArray]:
    """Block and offset of the positions that get a candidate. Where a plan takes several steps, which are open at the
    later ones only the device knows: then all of them."""
    if plan.num_steps > 1:
        return every_place(plan.decoded)
    return plan.decoded.open_block_M, plan.decoded.open_offset_M


def every_place(decoded: DecodeSpans) -> tuple[IntArray, IntArray]:
    """Block and offset of all positions of the decided blocks, filled or not."""
    offset_B = np.arange(decoded.width)
    block_M, offset_M = np.nonzero(offset_B < (decoded.end_N - decoded.start_N)[:, None])
    return block_M, offset_M
