"""Parts of the published layouts that several families share.

``published`` and ``own`` are prefixes of names, those of the checkpoint and those of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.layers.attention import SelfAttention
from engine.layers.linear import PackedLinear
from engine.layers.mlp import SwiGLU
from engine.layers.moe import SparseMoE
from engine.models.spec import CheckpointTensor
from engine.models.transformer import Transformer, TransformerLayer


def same_name(published: str, own: str, *names: str) -> Iterator[CheckpointTensor]:
    """Tensors that have the parameter's own name."""
    return (CheckpointTensor(published + name, own + name) for name in names)


def packed(published: str, own: str, parts: Sequence[str], linear: PackedLinear) -> Iterator[CheckpointTensor]:
    """The parts of a packed projection as projections of their own, weights before biases."""
    for kind in ("weight",) if linear.bias is None else ("weight", "bias"):
        for part, (start, end) in zip(parts, linear.rows, strict=True):
            yield CheckpointTensor(f"{published}{part}.{kind}", f"{own}.{kind}", start, end)


def outer_tensors(model: Transformer) -> Iterator[CheckpointTensor]:
    """Embedding, final norm and head."""
    yield CheckpointTensor("model.embed_tokens.weight", "embed_tokens.weight")
    yield CheckpointTensor("model.norm.weight", "norm.weight")
    if model.lm_head is not None:
        yield CheckpointTensor("lm_head.weight", "lm_head.weight")


def layers(model: Transformer) -> Iterator[tuple[str, str, TransformerLayer]]:
    """Prefix of the published names, prefix of the parameters, and the layer."""
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, TransformerLayer)
        yield f"model.layers.{index}.", f"layers.{index}.", layer


def attention_tensors(published: str, own: str, attention: SelfAttention) -> Iterator[CheckpointTensor]:
    """``q_proj``, ``k_proj``, ``v_proj``, ``o_proj`` and, where there are any, ``q_norm`` and ``k_norm``."""
    yield from packed(published, own + "qkv_proj", ("q_proj", "k_proj", "v_proj"), attention.qkv_proj)
    yield from same_name(published, own, "o_proj.weight")
    if attention.o_proj.bias is not None:
        yield from same_name(published, own, "o_proj.bias")
    if attention.q_norm is not None:
        yield from same_name(published, own, "q_norm.weight", "k_norm.weight")


def mlp_tensors(published: str, own: str, mlp: SwiGLU) -> Iterator[CheckpointTensor]:
    """``gate_proj``, ``up_proj`` and ``down_proj``."""
    yield from packed(published, own + "gate_up_proj", ("gate_proj", "up_proj"), mlp.gate_up_proj)
    yield from same_name(published, own, "down_proj.weight")


def moe_tensors(published: str, own: str, moe: SparseMoE) -> Iterator[CheckpointTensor]:
    """``gate`` (with ``expert_bias``), ``experts.N`` with the names of an MLP, and ``shared_experts``."""
    yield from same_name(published, own, "gate.weight")
    if moe.gate.expert_bias is not None:
        yield from same_name(published, own, "gate.expert_bias")
    width = moe.experts.intermediate_size
    for expert in range(moe.experts.num_experts):
        prefix = f"{published}experts.{expert}."
        gate_up, down = own + "experts.gate_up_proj", own + "experts.down_proj"
        yield CheckpointTensor(prefix + "gate_proj.weight", gate_up, 0, width, expert)
        yield CheckpointTensor(prefix + "up_proj.weight", gate_up, width, None, expert)
        yield CheckpointTensor(prefix + "down_proj.weight", down, expert=expert)
    if moe.shared_experts is not None:
        yield from mlp_tensors(published + "shared_experts.", own + "shared_experts.", moe.shared_experts)


def feed_forward_tensors(published: str, own: str, mlp: SwiGLU | SparseMoE) -> Iterator[CheckpointTensor]:
    """Of a dense or a mixture-of-experts layer."""
    return mlp_tensors(published, own, mlp) if isinstance(mlp, SwiGLU) else moe_tensors(published, own, mlp)


def fused_expert_tensors(model: Transformer) -> Iterator[CheckpointTensor]:
    """``w1`` ``[E, 2F, D]`` (gate above up) and ``w2`` ``[E, D, F]``, as dInfer's conversion stores experts."""
    for published, own, layer in layers(model):
        if isinstance(layer.mlp, SparseMoE):
            yield CheckpointTensor(published + "mlp.w1", own + "mlp.experts.gate_up_proj")
            yield CheckpointTensor(published + "mlp.w2", own + "mlp.experts.down_proj")


def llama_tensors(model: Transformer) -> Iterator[CheckpointTensor]:
    """The whole layout of Llama and its descendants (Qwen2, Qwen3 and their mixtures of experts)."""
    yield from outer_tensors(model)
    for published, own, layer in layers(model):
        yield from same_name(published, own, "input_layernorm.weight", "post_attention_layernorm.weight")
        yield from attention_tensors(published + "self_attn.", own + "self_attn.", layer.self_attn)
        yield from feed_forward_tensors(published + "mlp.", own + "mlp.", layer.mlp)
