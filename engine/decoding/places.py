"""The positions that want a candidate, and which of them some blocks have: known to the host beforehand, so that no
index has to be counted on the device.

Shape legend: N decoded blocks, M open positions of these blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.transfer import to_device


@dataclass(frozen=True, slots=True)
class Chosen:
    """Indices into open positions, on the device and on the host."""

    index: Tensor
    on_host: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    """Position m is place ``offset_M[m]`` of block ``block_M[m]``; ``host_block_M`` are the same blocks."""

    block_M: Tensor
    offset_M: Tensor
    host_block_M: npt.NDArray[np.int64]

    @classmethod
    def of(cls, block_M: Tensor, offset_M: Tensor) -> Places:
        """Places that the host can read without waiting: their tensors lie in its memory."""
        return cls(block_M, offset_M, block_M.numpy())

    def __len__(self) -> int:
        return len(self.host_block_M)

    def part(self, start: int, end: int) -> Places:
        """Those of the given numbers."""
        return Places(self.block_M[start:end], self.offset_M[start:end], self.host_block_M[start:end])

    def only(self, chosen: Chosen) -> Places:
        """The chosen ones."""
        return Places(self.block_M[chosen.index], self.offset_M[chosen.index], self.host_block_M[chosen.on_host])

    def where(self, wanted_N: npt.NDArray[np.bool_]) -> Chosen | None:
        """The places of the wanted blocks, None without any."""
        if not wanted_N.any():
            return None
        device = self.block_M.device
        if wanted_N.all():  # then nothing has to travel, and a CUDA graph may be recorded
            return Chosen(torch.arange(len(self), device=device), np.arange(len(self)))
        on_host = np.flatnonzero(wanted_N[self.host_block_M])
        return Chosen(to_device(on_host, device), on_host)
