"""LLaDA (``LLaDAModelLM``): a Llama-shaped network without any attention mask.

Source: Nie et al., "Large Language Diffusion Models" (arXiv 2502.09992), and the published checkpoints' layout. Logits
at position i predict token i.
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


class LLaDABlock(nn.Module):
    """``h = x + attention(norm(x))``, then ``h + mlp(norm(h))``."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.attention = SelfAttention(spec.hidden_size, spec.num_heads, spec.num_kv_heads, spec.head_dim)
        self.ff_norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.mlp = SwiGLU(spec.hidden_size, spec.intermediate_size)

    def forward(
        self, layer: int, hidden_TD: Tensor, rotary: tuple[Tensor, Tensor], attention: AttentionBackend
    ) -> Tensor:
        hidden_TD = hidden_TD + self.attention(layer, self.attn_norm(hidden_TD), rotary, attention)
        output: Tensor = hidden_TD + self.mlp(self.ff_norm(hidden_TD))
        return output


class LLaDAModel(DiffusionLM):
    """The published biases are all absent (``include_bias`` false), the head is untied unless ``weight_tying``."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.wte = Embedding(spec.vocab_size, spec.hidden_size)
        self.blocks = nn.ModuleList(LLaDABlock(spec) for _ in range(spec.num_layers))
        self.ln_f = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.ff_out = None if spec.tie_word_embeddings else Embedding(spec.vocab_size, spec.hidden_size)
        self.rotary = RotaryEmbedding(spec.head_dim, spec.rope_theta)

    def embed(self, token_ids_T: Tensor) -> Tensor:
        embeddings: Tensor = self.wte(token_ids_T)
        return embeddings

    def forward(self, embeddings_TD: Tensor, positions_T: Tensor, attention: AttentionBackend) -> Tensor:
        rotary = self.rotary(positions_T)
        hidden_TD = embeddings_TD
        for layer, block in enumerate(self.blocks):
            hidden_TD = block(layer, hidden_TD, rotary, attention)
        normed: Tensor = self.ln_f(hidden_TD)
        return normed

    def compute_logits(self, hidden_MD: Tensor) -> Tensor:
        return (self.wte if self.ff_out is None else self.ff_out).logits(hidden_MD)

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        yield CheckpointTensor("model.transformer.wte.weight", "wte.weight")
        yield CheckpointTensor("model.transformer.ln_f.weight", "ln_f.weight")
        if self.ff_out is not None:
            yield CheckpointTensor("model.transformer.ff_out.weight", "ff_out.weight")
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, LLaDABlock)
            yield from _block_tensors(f"model.transformer.blocks.{layer}.", f"blocks.{layer}.", block)


def _block_tensors(published: str, own: str, block: LLaDABlock) -> Iterator[CheckpointTensor]:
    for norm in ("attn_norm.weight", "ff_norm.weight"):
        yield CheckpointTensor(published + norm, own + norm)
    for name, (start, end) in zip(("q_proj", "k_proj", "v_proj"), block.attention.qkv_proj.rows, strict=True):
        yield CheckpointTensor(f"{published}{name}.weight", own + "attention.qkv_proj.weight", start, end)
    yield CheckpointTensor(published + "attn_out.weight", own + "attention.o_proj.weight")
    for name, (start, end) in zip(("ff_proj", "up_proj"), block.mlp.gate_up_proj.rows, strict=True):
        yield CheckpointTensor(f"{published}{name}.weight", own + "mlp.gate_up_proj.weight", start, end)
    yield CheckpointTensor(published + "ff_out.weight", own + "mlp.down_proj.weight")
