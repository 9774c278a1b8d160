"""Attention over one padded batch with an explicit mask: for training and for checking other backends.

Nothing is stored between forwards, so there is no K/V cache and every token is computed each time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend


class DenseAttention(AttentionBackend):
    """Tokens are ``batch`` sequences of ``length`` laid end to end (T = batch * length).

    ``mask`` is boolean, True where a query (row) may see a key (column): ``[N, N]`` for all sequences, or
    ``[batch, 1, N, N]``; None lets everything see everything. A query that may see nothing gives NaN.
    ``row_T`` numbers the diffusion blocks of all sequences, for networks that ask for them. Written out rather than
    fused: on a CPU the backward pass of the fused operator takes several times as long.
    """

    def __init__(self, batch: int, length: int, mask: Tensor | None = None, row_T: Tensor | None = None) -> None:
        self._shape = (batch, length)
        self._mask = mask
        self._row_T = row_T

    @property
    def row_T(self) -> Tensor | None:
        return self._row_T

    def attend(self, layer: int, queries_THD: Tensor, keys_TKD: Tensor, values_TKD: Tensor) -> Tensor:
        queries, keys, values = (
            x.unflatten(0, self._shape).transpose(1, 2) for x in (queries_THD, keys_TKD, values_TKD)
        )
        repeats = queries.shape[1] // keys.shape[1]
        if repeats > 1:
            keys, values = keys.repeat_interleave(repeats, 1), values.repeat_interleave(repeats, 1)
        scores = torch.matmul(queries * queries.shape[-1] ** -0.5, keys.transpose(-1, -2)).float()
        if self._mask is not None:
            scores = scores.masked_fill(~self._mask, -torch.inf)
        return torch.matmul(scores.softmax(-1).to(values.dtype), values).transpose(1, 2).flatten(0, 1)
