"""Linear projections. Parameters are allocated and left uninitialised: a loader or a trainer fills them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Module):
    """``x @ weight.T + bias`` with ``weight`` of shape ``[out, in]``."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class PackedLinear(nn.Module):
    """Several projections of one input as a single product: ``weight`` stacks their rows in order.

    Used for query/key/value and for gate/up. ``rows[i]`` is the half-open row range of part ``i``.
    """

    def __init__(self, in_features: int, part_sizes: Sequence[int], *, bias: bool = False) -> None:
        super().__init__()
        self.part_sizes = tuple(part_sizes)
        ends = tuple(accumulate(self.part_sizes))
        self.rows = tuple(zip((0, *ends[:-1]), ends, strict=True))
        self.weight = nn.Parameter(torch.empty(ends[-1], in_features))
        self.bias = nn.Parameter(torch.empty(ends[-1])) if bias else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One tensor per part."""
        parts: tuple[Tensor, ...] = functional.linear(x, self.weight, self.bias).split(self.part_sizes, dim=-1)
        return parts
