"""Matrix products with int8 weights.

Shape legend: M positions, K input features, N output features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGEST = 127
"""Of the numbers in use; -128 is left out, so that the range is symmetric."""


class Int8Matrix(nn.Module):
    """A weight ``[N, K]`` rounded to int8, with one float32 scale per output feature.

    A product rounds each position of its input to int8 as well, with a scale of its own, so that no position's result
    depends on its neighbours; sums are exact integers.
    """

    def __init__(self, weight_NK: Tensor) -> None:
        super().__init__()
        rounded_NK, scale_N1 = rounded(weight_NK.detach())
        self.weight = nn.Parameter(rounded_NK, requires_grad=False)
        self.scale = nn.Parameter(scale_N1[:, 0], requires_grad=False)

    def forward(self, x_MK: Tensor) -> Tensor:
        """The product ``[M, N]`` in the dtype of ``x_MK``."""
        rounded_MK, scale_M1 = rounded(x_MK)
        sums_MN = torch._int_mm(rounded_MK, self.weight.t())
        return sums_MN.float().mul_(scale_M1).mul_(self.scale).to(x_MK.dtype)


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as int8, and the float32 scale ``[rows, 1]`` that gives it back."""
    exact = rows.float()
    scale = exact.abs().amax(dim=1, keepdim=True).div_(LARGEST).clamp_(min=torch.finfo(torch.float32).tiny)
    return (exact / scale).round_().to(torch.int8), scale
