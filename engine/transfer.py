"""What travels between host and device, without the host waiting for the device.

On a GPU a copy from ordinary memory waits; one from pinned memory is only queued. Pinned memory comes from torch's
caching allocator, which hands it out again no sooner than the copies that read it are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

HostArray = npt.NDArray[Any]


def to_device(values: HostArray | Tensor, device: torch.device) -> Tensor:
    """The values on the device. On a CPU the tensor shares their memory."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def pack_to_device(arrays: Sequence[HostArray], device: torch.device) -> list[Tensor]:
    """Vectors of integers or booleans on the device, in one copy."""
    if device.type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    packed = np.concatenate([array.astype(np.int64, copy=False) for array in arrays])
    parts = to_device(packed, device).split([len(array) for array in arrays])
    return [part.bool() if array.dtype == np.bool_ else part for array, part in zip(arrays, parts, strict=True)]


class HostCopy:
    """A tensor on its way to the host. The copy is queued when this is made; only :meth:`array` waits for it."""

    def __init__(self, tensor: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._host = tensor

    def array(self) -> HostArray:
        """The values, once they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host.numpy()
