"""Plain forwards of a network, to be compared with recorded ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.attention.dense import DenseAttention
from engine.models.spec import DiffusionLM


class RecordingAttention(DenseAttention):
    """Keeps the (rotated) keys and the values of each layer."""

    def __init__(self, batch: int, length: int, mask: Tensor | None, row_T: Tensor | None) -> None:
        super().__init__(batch, length, mask, row_T)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def attend(self, layer: int, queries_THD: Tensor, keys_TKD: Tensor, values_TKD: Tensor) -> Tensor:
        self.keys.append(keys_TKD)
        self.values.append(values_TKD)
        return super().attend(layer, queries_THD, keys_TKD, values_TKD)


@dataclass(slots=True)
class Forward:
    """``logits`` and ``hidden`` (after the final norm) per position; ``keys`` and ``values`` per layer, each
    ``[batch, heads, length, head_dim]``."""

    logits: Tensor
    hidden: Tensor
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


def forward(model: DiffusionLM, ids_BN: Tensor, block_length: int | None = None) -> Forward:
    """Every position attends to all others or, with ``block_length``, to those of its own and earlier blocks."""
    batch, length = ids_BN.shape
    block_N = torch.arange(length) // (block_length or length)
    mask = None if block_length is None else block_N[:, None] >= block_N[None, :]
    row_T = (torch.arange(batch)[:, None] * length + block_N).flatten().unique(return_inverse=True)[1]
    attention = RecordingAttention(batch, length, mask, row_T)
    with torch.inference_mode():
        hidden_TD = model(model.embed(ids_BN.flatten().long()), torch.arange(length).repeat(batch), attention)
        logits_TV = model.compute_logits(hidden_TD)

    def by_head(x_THD: Tensor) -> Tensor:
        heads_BHNd: Tensor = x_THD.unflatten(0, (batch, length)).transpose(1, 2)
        return heads_BHNd

    return Forward(
        logits=logits_TV.unflatten(0, (batch, length)),
        hidden=hidden_TD.unflatten(0, (batch, length)),
        keys=[by_head(keys) for keys in attention.keys],
        values=[by_head(values) for values in attention.values],
    )
