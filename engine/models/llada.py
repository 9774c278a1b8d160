"""LLaDA and LLaDA 1.5 (``LLaDAModelLM``): a Llama-shaped network without any attention mask.

Source: Nie et al., "Large Language Diffusion Models" (arXiv 2502.09992), and the published checkpoints' layout. Logits
at position i predict token i.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.layers.mlp import SwiGLU
from engine.models import tensor_names
from engine.models.spec import CheckpointTensor, ModelSpec
from engine.models.transformer import Transformer, TransformerLayer
from engine.parallel import ALONE, Ranks


class LLaDAModel(Transformer):
    """The published biases are all absent (``include_bias`` false), the head is untied unless ``weight_tying``."""

    def __init__(self, spec: ModelSpec, ranks: Ranks = ALONE) -> None:
        super().__init__(spec, ranks, qk_norm=False)

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        yield CheckpointTensor("model.transformer.wte.weight", "embed_tokens.weight")
        yield CheckpointTensor("model.transformer.ln_f.weight", "norm.weight")
        if self.lm_head is not None:
            yield CheckpointTensor("model.transformer.ff_out.weight", "lm_head.weight")
        for _, own, layer in tensor_names.layers(self):
            yield from _block_tensors(own.replace("layers.", "model.transformer.blocks."), own, layer)


def _block_tensors(published: str, own: str, layer: TransformerLayer) -> Iterator[CheckpointTensor]:
    yield CheckpointTensor(published + "attn_norm.weight", own + "input_layernorm.weight")
    projections = ("q_proj", "k_proj", "v_proj")
    yield from tensor_names.packed(published, own + "self_attn.qkv_proj", projections, layer.self_attn.qkv_proj)
    yield CheckpointTensor(published + "attn_out.weight", own + "self_attn.o_proj.weight")
    yield CheckpointTensor(published + "ff_norm.weight", own + "post_attention_layernorm.weight")
    assert isinstance(layer.mlp, SwiGLU)
    yield from tensor_names.packed(published, own + "mlp.gate_up_proj", ("ff_proj", "up_proj"), layer.mlp.gate_up_proj)
    yield CheckpointTensor(published + "ff_out.weight", own + "mlp.down_proj.weight")
