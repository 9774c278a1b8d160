"""Rotary position embedding, rotate-half form (the two halves of the rotated part of a head form the pairs).

Shape legend: T tokens of a forward, H heads, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """Angles of absolute positions, in float32, for the first ``rotary_dim`` dimensions of each head.

    The inverse frequencies ``theta ** (-2i / rotary_dim)`` are recomputed on each call: there is no buffer to load,
    to cast or to move by mistake.
    """

    def __init__(self, rotary_dim: int, theta: float) -> None:
        super().__init__()
        assert rotary_dim % 2 == 0, "the rotary embedding pairs the halves of a head"
        self.rotary_dim = rotary_dim
        self.theta = theta

    def forward(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines ``[T, 1, rotary_dim / 2]``, to be shared by all heads and layers."""
        evens = torch.arange(0, self.rotary_dim, 2, device=positions_T.device, dtype=torch.float32)
        angles = positions_T.float()[:, None] * (self.theta ** -(evens / self.rotary_dim))[None, :]
        return angles.cos()[:, None, :], angles.sin()[:, None, :]


def rotate(x_THD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys; computed in float32, returned in the dtype of ``x_THD``.

    Dimensions beyond the angles' (partial rotary embeddings) pass through.
    """
    half = cos.shape[-1]
    turned = x_THD[..., : 2 * half].float()
    first, second = turned[..., :half], turned[..., half:]
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_THD.dtype)
    return rotated if 2 * half == x_THD.shape[-1] else torch.cat((rotated, x_THD[..., 2 * half :]), dim=-1)
