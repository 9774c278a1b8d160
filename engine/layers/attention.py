"""Self-attention around an attention backend: projections, optional QK norm, rotary embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.attention.backend import AttentionBackend
from engine.layers.division import head_parts
from engine.layers.linear import Linear, PackedLinear
from engine.layers.norm import RMSNorm, rms_norm
from engine.layers.rotary import rotate
from engine.parallel import ALONE, Group


class SelfAttention(nn.Module):
    """Queries, keys and values come from one packed projection ``qkv_proj``; ``o_proj`` mixes the heads.

    ``qk_norm_eps`` switches on an RMS norm of each query and key head before the rotation (one weight of size
    ``head_dim`` for all query heads, one for all key heads). ``bias`` is that of the packed projection, and of
    ``o_proj`` too unless ``output_bias`` says otherwise. The ranks of ``group`` have a part of the heads each.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        bias: bool = False,
        output_bias: bool | None = None,
        qk_norm_eps: float | None = None,
        group: Group = ALONE.tensor,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        query_part, kv_part = head_parts(group.part, num_heads, num_kv_heads)
        queries, keys = (
            (start * head_dim, end * head_dim)
            for start, end in (query_part.span(num_heads), kv_part.span(num_kv_heads))
        )
        sizes = (num_heads * head_dim, num_kv_heads * head_dim, num_kv_heads * head_dim)
        self.qkv_proj = PackedLinear(hidden_size, sizes, bias=bias, outputs=(queries, keys, keys))
        output_bias = bias if output_bias is None else output_bias
        self.o_proj = Linear(num_heads * head_dim, hidden_size, bias=output_bias, inputs=queries, group=group)
        self.q_norm = RMSNorm(head_dim, qk_norm_eps) if qk_norm_eps is not None else None
        self.k_norm = RMSNorm(head_dim, qk_norm_eps) if qk_norm_eps is not None else None

    def forward(
        self,
        layer: int,
        x_TD: Tensor,
        rotary: tuple[Tensor, Tensor],
        attention: AttentionBackend,
        read_M: Tensor | None = None,
    ) -> Tensor:
        """Output ``[T, D]``, or that of the tokens ``read_M`` alone; ``rotary`` holds the cosines and sines of the
        tokens' positions."""
        queries, keys, values = self._heads(x_TD, rotary)
        mixed_THD = attention.attend(layer, queries, keys, values)
        if read_M is not None:
            mixed_THD = mixed_THD[read_M]
        output: Tensor = self.o_proj(mixed_THD.flatten(-2))
        return output

    def _heads(self, x_TD: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Rotated queries ``[T, H, D]`` and keys, and values ``[T, K, D]``. Queries and keys are normed and turned as
        one tensor."""
        heads_THD = self.qkv_proj.packed(x_TD).contiguous().unflatten(-1, (-1, self.head_dim))
        num_queries, num_keys, num_values = (size // self.head_dim for size in self.qkv_proj.part_sizes)
        turned, values = heads_THD.split((num_queries + num_keys, num_values), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            turned = rms_norm(turned, self._norm_weights(num_queries, num_keys), self.q_norm.eps)
        queries, keys = rotate(turned, *rotary).split((num_queries, num_keys), dim=1)
        return queries, keys, values

    def _norm_weights(self, num_queries: int, num_keys: int) -> Tensor:
        """The weight of every head's norm, ``[H + K, D]``."""
        assert self.q_norm is not None
        assert self.k_norm is not None
        queries, keys = self.q_norm.weight.expand(num_queries, -1), self.k_norm.weight.expand(num_keys, -1)
        return torch.cat((queries, keys))
