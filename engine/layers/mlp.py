"""Gated feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from engine.layers.linear import Linear, PackedLinear


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))``; gate and up are packed in ``gate_up_proj`` in that order."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = PackedLinear(hidden_size, (intermediate_size, intermediate_size))
        self.down_proj = Linear(intermediate_size, hidden_size)

    def forward(self, x_TD: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x_TD)
        down: Tensor = self.down_proj(functional.silu(gate) * up)
        return down
