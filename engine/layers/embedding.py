"""Token embedding and output head, divided over the ranks by token id.

Shape legend: T tokens of a forward, M positions, V token ids of this rank, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.layers.division import Division
from engine.layers.int8 import Int8Matrix
from engine.layers.linear import MOST_IN_STRIPS, can_be_in_strips, in_strips
from engine.parallel import ALONE, Ranks

PART_BYTES = 2**21
"""A CPU makes so many logits at a time: about what the second-level cache of a core holds."""

MIN_PART = 1024
"""Fewest token ids of a part: products get slow when they are narrow."""


class Embedding(nn.Module):
    """The rows ``span`` of a table of ``vocab_size`` rows: ``weight`` ``[V, D]``, left uninitialised like every layer.
    With tied weights it is the head as well.

    Embeddings are summed over the tensor ranks, so every rank gets whole ones; logits stay where they are.
    """

    def __init__(self, vocab_size: int, hidden_size: int, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.group = ranks.tensor
        self.span = self.group.part.span(vocab_size)
        self.weight = nn.Parameter(torch.empty(self.span[1] - self.span[0], hidden_size))
        self.int8: Int8Matrix | None = None
        self.divisions: Mapping[str, Sequence[Division]] = {"weight": (Division(0, vocab_size, (self.span,)),)}

    def forward(self, token_ids_T: Tensor) -> Tensor:
        if self.group.part.count == 1:
            return functional.embedding(token_ids_T, self.weight)
        start, end = self.span
        elsewhere_T = (token_ids_T < start) | (token_ids_T >= end)
        rows_TD = functional.embedding((token_ids_T - start).masked_fill(elsewhere_T, 0), self.weight)
        return self.group.all_reduce(rows_TD.masked_fill(elsewhere_T[..., None], 0.0))

    def mix(self, weights_MV: Tensor) -> Tensor:
        """Weighted sums of all ranks' rows, ``[M, D]``."""
        return self.group.all_reduce(weights_MV.to(self.weight.dtype) @ self.weight)

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Product with every row of this rank: logits ``[M, V]``."""
        if self.int8 is not None:
            logits_MV: Tensor = self.int8(hidden_MD)
            return logits_MV
        return functional.linear(hidden_MD, self.weight)

    @property
    def in_parts(self) -> bool:
        """Whether :meth:`upright_parts` are the way to look at all logits once."""
        return self.int8 is None and self.weight.device.type == "cpu"

    def upright_parts(self, hidden_MD: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First token id and float32 logits ``[v, M]`` of adjacent ids, each part made when it is asked for."""
        width = max(PART_BYTES // (4 * len(hidden_MD)) // MIN_PART, 1) * MIN_PART
        for start in range(0, len(self.weight), width):
            yield start, _upright(self.weight[start : start + width], hidden_MD).float()

    def quantize(self, *, keep: bool) -> None:
        """Make logits with int8 from now on. Without ``keep`` nothing is left to look up: a head that is no table."""
        self.int8 = Int8Matrix(self.weight)
        if not keep:
            self.weight = nn.Parameter(self.weight.new_empty(0, self.weight.shape[1]), requires_grad=False)


def _upright(weight_VD: Tensor, hidden_MD: Tensor) -> Tensor:
    """Logits ``[V, M]``, of few positions one position after the other in memory."""
    if len(hidden_MD) > MOST_IN_STRIPS or not can_be_in_strips(weight_VD):
        return torch.mm(weight_VD, hidden_MD.t())
    return in_strips(hidden_MD, weight_VD).t()
