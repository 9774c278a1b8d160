"""The network that all families share: pre-norm attention and feed-forward layers.

``h = x + self_attn(norm(x))``, then ``h + mlp(norm(h))``; the families differ in a few switches and in what their
checkpoints call the tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.attention.backend import AttentionBackend
from engine.decoding.vocabulary import Best, Vocabulary
from engine.layers.attention import SelfAttention
from engine.layers.division import head_parts
from engine.layers.embedding import Embedding
from engine.layers.mlp import SwiGLU
from engine.layers.moe import SparseMoE
from engine.layers.norm import RMSNorm
from engine.layers.rotary import RotaryEmbedding
from engine.models.spec import DiffusionLM, ModelSpec
from engine.parallel import Ranks


class TransformerLayer(nn.Module):
    """One layer; ``mlp`` is dense or a mixture of experts, as the spec says for the layer's ``index``."""

    def __init__(self, spec: ModelSpec, ranks: Ranks, index: int, *, qk_norm: bool, output_bias: bool) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.self_attn = SelfAttention(
            spec.hidden_size,
            spec.num_heads,
            spec.num_kv_heads,
            spec.head_dim,
            bias=spec.attention_bias,
            output_bias=output_bias,
            qk_norm_eps=spec.rms_norm_eps if qk_norm else None,
            group=ranks.tensor,
        )
        self.post_attention_layernorm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.mlp = feed_forward(spec, ranks, index)

    @property
    def routes_blocks(self) -> bool:
        """Whether the tokens of a diffusion block choose their experts together."""
        return isinstance(self.mlp, SparseMoE) and self.mlp.gate.rule.per_block

    def forward(
        self,
        index: int,
        hidden_TD: Tensor,
        rotary: tuple[Tensor, Tensor],
        attention: AttentionBackend,
        read_M: Tensor | None = None,
    ) -> Tensor:
        """``[T, D]``; with ``read_M`` all tokens' keys and values are stored and these tokens alone go on,
        ``[M, D]``."""
        attended = self.self_attn(index, self.input_layernorm(hidden_TD), rotary, attention, read_M)
        hidden = (hidden_TD if read_M is None else hidden_TD[read_M]) + attended
        normed = self.post_attention_layernorm(hidden)
        output: Tensor = hidden + (self.mlp(normed, attention.row_T) if self.routes_blocks else self.mlp(normed))
        return output


class Transformer(DiffusionLM):
    """``qk_norm`` normalises each query and key head, ``output_bias`` gives the attention's output projection a bias
    (``spec.attention_bias`` decides for the other three)."""

    def __init__(self, spec: ModelSpec, ranks: Ranks, *, qk_norm: bool, output_bias: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.ranks = ranks
        self.embed_tokens = Embedding(spec.vocab_size, spec.hidden_size, ranks)
        self.layers = nn.ModuleList(
            TransformerLayer(spec, ranks, index, qk_norm=qk_norm, output_bias=output_bias)
            for index in range(spec.num_layers)
        )
        self.norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.lm_head = None if spec.tie_word_embeddings else Embedding(spec.vocab_size, spec.hidden_size, ranks)
        self.rotary = RotaryEmbedding(spec.rotary_dim or spec.head_dim, spec.rope_theta)

    @property
    def num_kv_heads(self) -> int:
        _, kv_part = head_parts(self.ranks.tensor.part, self.spec.num_heads, self.spec.num_kv_heads)
        return self.spec.num_kv_heads // kv_part.count

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.spec.vocab_size, self.embed_tokens.group)

    def embed(self, token_ids_T: Tensor) -> Tensor:
        embeddings: Tensor = self.embed_tokens(token_ids_T)
        return embeddings

    def mix(self, weights_MV: Tensor) -> Tensor:
        return self.embed_tokens.mix(weights_MV)

    def forward(
        self, embeddings_TD: Tensor, positions_T: Tensor, attention: AttentionBackend, read_M: Tensor | None = None
    ) -> Tensor:
        rotary = self.rotary(positions_T)
        *layers, last = self.layers
        hidden_TD = embeddings_TD
        for index, layer in enumerate(layers):
            hidden_TD = layer(index, hidden_TD, rotary, attention)
        if read_M is None or last.routes_blocks:
            normed: Tensor = self.norm(last(len(layers), hidden_TD, rotary, attention))
            return normed
        read_MD = self.norm(last(len(layers), hidden_TD, rotary, attention, read_M))
        return torch.zeros_like(hidden_TD).index_copy_(0, read_M, read_MD)

    def compute_logits(self, hidden_MD: Tensor) -> Tensor:
        return self._head.logits(hidden_MD)

    def best(self, hidden_MD: Tensor, without: int) -> Best:
        head = self._head
        if head.in_parts:
            return self.vocabulary.best_in_parts(head.upright_parts(hidden_MD), without)
        return self.vocabulary.best(head.logits(hidden_MD).float(), without)

    @property
    def _head(self) -> Embedding:
        return self.embed_tokens if self.lm_head is None else self.lm_head


def feed_forward(spec: ModelSpec, ranks: Ranks, layer: int) -> SwiGLU | SparseMoE:
    """The feed-forward part of a layer."""
    moe = spec.moe
    if moe is None or layer in moe.dense_layers:
        return SwiGLU(spec.hidden_size, spec.intermediate_size, ranks.tensor)
    return SparseMoE(
        spec.hidden_size,
        moe.num_experts,
        moe.intermediate_size,
        moe.routing,
        expert_bias=moe.expert_bias,
        shared_intermediate_size=moe.shared_intermediate_size,
        ranks=ranks,
    )
