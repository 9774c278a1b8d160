"""What would make the host wait for a GPU, seen on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.transfer import HostArray, HostCopy

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
    aten.equal.default,
    aten.is_nonzero.default,
    aten._unique2.default,
}
"""Operators whose result, or its shape, the host needs."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class Waits(TorchDispatchMode):
    """Collects the operators for which a GPU's host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in WAITING or needs_a_count(func, args):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def needs_a_count(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether it indexes by a boolean, which is counted first."""
    if func not in INDEXING:
        return False
    indices: Sequence[Tensor | None] = args[1]
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


class PretendedCopy(HostCopy):
    """From the meta device, which has no values to copy, zeros come."""

    def array(self) -> HostArray:
        return np.zeros(self._host.shape, np.int64) if self._host.is_meta else super().array()
