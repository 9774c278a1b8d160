"""Rotary position embedding, rotate-half form (the two halves of the rotated part of a head form the pairs).

Shape legend: T tokens of a forward, H heads, D head dimension, R of these rotated.
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
        """Return the cosines of both halves and the sines, negative for the first half, ``[T, 1, R]``, to be shared by
        all heads and layers."""
        evens = torch.arange(0, self.rotary_dim, 2, device=positions_T.device, dtype=torch.float32)
        angles = positions_T.float()[:, None] * (self.theta ** -(evens / self.rotary_dim))[None, :]
        cosines, sines = angles.cos(), angles.sin()
        return torch.cat((cosines, cosines), dim=-1)[:, None], torch.cat((-sines, sines), dim=-1)[:, None]


def rotate(x_THD: Tensor, cosines_T1R: Tensor, sines_T1R: Tensor) -> Tensor:
    """Rotate queries or keys, or both at once; computed in float32, returned in the dtype of ``x_THD``.

    Dimensions beyond the angles' (partial rotary embeddings) pass through.
    """
    width = cosines_T1R.shape[-1]
    partial = width < x_THD.shape[-1]
    turned_THR = (x_THD[..., :width] if partial else x_THD).float()
    first, second = turned_THR.chunk(2, dim=-1)
    swapped_THR = torch.cat((second, first), dim=-1)
    rotated_THR = torch.addcmul(turned_THR * cosines_T1R, swapped_THR, sines_T1R).to(x_THD.dtype)
    return torch.cat((rotated_THR, x_THD[..., width:]), dim=-1) if partial else rotated_THR
