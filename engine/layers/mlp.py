"""Gated feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from engine.layers.linear import Linear, PackedLinear
from engine.parallel import ALONE, Group


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))``; gate and up are packed in ``gate_up_proj`` in that order.

    The ranks of ``group`` have a part of the intermediate width each.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, group: Group = ALONE.tensor) -> None:
        super().__init__()
        width = group.part.span(intermediate_size)
        sizes = (intermediate_size, intermediate_size)
        self.gate_up_proj = PackedLinear(hidden_size, sizes, outputs=(width, width))
        self.down_proj = Linear(intermediate_size, hidden_size, inputs=width, group=group)

    def forward(self, x_TD: Tensor) -> Tensor:
        down: Tensor = self.down_proj(self._hidden(x_TD))
        return down

    def partial(self, x_TD: Tensor) -> Tensor:
        """What this rank's part of the width contributes."""
        return self.down_proj.partial(self._hidden(x_TD))

    def _hidden(self, x_TD: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x_TD)
        hidden: Tensor = functional.silu(gate) * up
        return hidden
