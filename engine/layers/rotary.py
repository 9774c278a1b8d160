"""Rotary position embedding, rotate-half form (the two halves of a head form the pairs)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """Angles of absolute positions, in float32.

    The inverse frequencies ``theta ** (-2i / head_dim)`` are recomputed on each call: there is no buffer to load,
    to cast or to move by mistake.
    """

    def __init__(self, head_dim: int, theta: float) -> None:
        super().__init__()
        assert head_dim % 2 == 0, "the rotary embedding pairs the halves of a head"
        self.head_dim = head_dim
        self.theta = theta

    def forward(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines ``[T, 1, head_dim / 2]``, to be shared by all heads and layers."""
        exponents = torch.arange(0, self.head_dim, 2, device=positions_T.device, dtype=torch.float32) / self.head_dim
        angles = positions_T.float()[:, None] * (self.theta**-exponents)[None, :]
        return angles.cos()[:, None, :], angles.sin()[:, None, :]


def rotate(x_THD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys; computed in float32, returned in the dtype of ``x_THD``."""
    first, second = x_THD.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_THD.dtype)
