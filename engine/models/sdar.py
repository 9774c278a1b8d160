"""SDAR dense (``SDARForCausalLM``): Qwen3's network run with a block-causal pattern.

Source: Cheng et al., "SDAR: A Synergistic Diffusion-AutoRegression Paradigm" (arXiv 2510.06303), and the published
checkpoints' layout. Logits at position i predict token i (no shift). The pattern itself is the attention backend's.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from engine.attention.backend import AttentionBackend
from engine.layers.attention import SelfAttention
from engine.layers.embedding import Embedding
from engine.layers.mlp import SwiGLU
from engine.layers.norm import RMSNorm
from engine.layers.rotary import RotaryEmbedding
from engine.models.spec import CheckpointTensor, DiffusionLM, ModelSpec


class SDARLayer(nn.Module):
    """``h = x + self_attn(norm(x))``, then ``h + mlp(norm(h))``."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.self_attn = SelfAttention(
            spec.hidden_size,
            spec.num_heads,
            spec.num_kv_heads,
            spec.head_dim,
            bias=spec.attention_bias,
            qk_norm_eps=spec.rms_norm_eps,
        )
        self.post_attention_layernorm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.mlp = SwiGLU(spec.hidden_size, spec.intermediate_size)

    def forward(
        self, layer: int, hidden_TD: Tensor, rotary: tuple[Tensor, Tensor], attention: AttentionBackend
    ) -> Tensor:
        hidden_TD = hidden_TD + self.self_attn(layer, self.input_layernorm(hidden_TD), rotary, attention)
        output: Tensor = hidden_TD + self.mlp(self.post_attention_layernorm(hidden_TD))
        return output


class SDARModel(DiffusionLM):
    """``attention_bias`` adds a bias to all four attention projections, the output projection included."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(SDARLayer(spec) for _ in range(spec.num_layers))
        self.norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.lm_head = None if spec.tie_word_embeddings else Embedding(spec.vocab_size, spec.hidden_size)
        self.rotary = RotaryEmbedding(spec.head_dim, spec.rope_theta)

    def embed(self, token_ids_T: Tensor) -> Tensor:
        embeddings: Tensor = self.embed_tokens(token_ids_T)
        return embeddings

    def forward(self, embeddings_TD: Tensor, positions_T: Tensor, attention: AttentionBackend) -> Tensor:
        rotary = self.rotary(positions_T)
        hidden_TD = embeddings_TD
        for index, layer in enumerate(self.layers):
            hidden_TD = layer(index, hidden_TD, rotary, attention)
        normed: Tensor = self.norm(hidden_TD)
        return normed

    def compute_logits(self, hidden_MD: Tensor) -> Tensor:
        return (self.embed_tokens if self.lm_head is None else self.lm_head).logits(hidden_MD)

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        yield CheckpointTensor("model.embed_tokens.weight", "embed_tokens.weight")
        yield CheckpointTensor("model.norm.weight", "norm.weight")
        if self.lm_head is not None:
            yield CheckpointTensor("lm_head.weight", "lm_head.weight")
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, SDARLayer)
            yield from _layer_tensors(f"model.layers.{index}.", f"layers.{index}.", layer)


def _layer_tensors(published: str, own: str, layer: SDARLayer) -> Iterator[CheckpointTensor]:
    for norm in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
        yield CheckpointTensor(f"{published}{norm}.weight", f"{own}{norm}.weight")
    qkv = layer.self_attn.qkv_proj
    for kind in ("weight",) if qkv.bias is None else ("weight", "bias"):
        for name, (start, end) in zip(("q_proj", "k_proj", "v_proj"), qkv.rows, strict=True):
            parameter = f"{own}self_attn.qkv_proj.{kind}"
            yield CheckpointTensor(f"{published}self_attn.{name}.{kind}", parameter, start, end)
        yield CheckpointTensor(f"{published}self_attn.o_proj.{kind}", f"{own}self_attn.o_proj.{kind}")
    for name, (start, end) in zip(("gate_proj", "up_proj"), layer.mlp.gate_up_proj.rows, strict=True):
        yield CheckpointTensor(f"{published}mlp.{name}.weight", own + "mlp.gate_up_proj.weight", start, end)
    yield CheckpointTensor(published + "mlp.down_proj.weight", own + "mlp.down_proj.weight")
