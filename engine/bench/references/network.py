"""The network as the published model files compute it: plain torch over the engine's weights, one projection after the
other, norms and rotations operation by operation, logits of every position that is fed.

Left out, in favour of the references: attention biases that LLaDA's file builds and never uses, and what a GPU would
wait for.

Shape legend: B rows, T tokens of a row, L positions, H query heads, K key/value heads, D head dimension, C hidden
size, V token ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.bench.references.memory import Memory
from engine.errors import ConfigError
from engine.layers.mlp import SwiGLU
from engine.models.spec import DiffusionLM, ModelSpec
from engine.models.transformer import Transformer, TransformerLayer


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer, each projection apart, and their biases where there are any."""

    query: tuple[Tensor, Tensor | None]
    key: tuple[Tensor, Tensor | None]
    value: tuple[Tensor, Tensor | None]
    output: tuple[Tensor, Tensor | None]
    gate: Tensor
    up: Tensor
    down: Tensor
    attention_norm: Tensor
    feed_forward_norm: Tensor
    query_norm: Tensor | None
    key_norm: Tensor | None


class PublishedNetwork:
    """Owns copies of the weights of ``model``, laid out as checkpoints have them."""

    def __init__(self, model: DiffusionLM) -> None:
        if not isinstance(model, Transformer) or model.spec.moe is not None or model.spec.rotary_dim is not None:
            raise ConfigError(f"no reference loop is restated for {model.spec.architecture}", "shape")
        self.spec: ModelSpec = model.spec
        self._layers = [_layer(layer) for layer in model.layers if isinstance(layer, TransformerLayer)]
        self._table = _copy(model.embed_tokens.weight)
        self._head = self._table if model.lm_head is None else _copy(model.lm_head.weight)
        self._norm = _copy(model.norm.weight)
        self._cosines_LD, self._sines_LD = self._angles(0)

    @torch.inference_mode()
    def forward(self, tokens_BT: Tensor, start: int, memory: Memory) -> Tensor:
        """Logits ``[B, T, V]`` of tokens whose first is at position ``start``."""
        hidden_BTC = functional.embedding(tokens_BT, self._table)
        for index, layer in enumerate(self._layers):
            normed_BTC = self._rms_norm(hidden_BTC, layer.attention_norm)
            hidden_BTC = hidden_BTC + self._attend(normed_BTC, start, memory, index, layer)
            normed_BTC = self._rms_norm(hidden_BTC, layer.feed_forward_norm)
            gate_BTF = functional.silu(functional.linear(normed_BTC, layer.gate))
            hidden_BTC = hidden_BTC + functional.linear(gate_BTF * functional.linear(normed_BTC, layer.up), layer.down)
        return functional.linear(self._rms_norm(hidden_BTC, self._norm), self._head)

    def _attend(self, x_BTC: Tensor, start: int, memory: Memory, index: int, layer: Layer) -> Tensor:
        queries, keys, values = (
            functional.linear(x_BTC, *weights).unflatten(-1, (-1, self.spec.head_dim)).transpose(1, 2)
            for weights in (layer.query, layer.key, layer.value)
        )
        if layer.query_norm is not None and layer.key_norm is not None:
            queries, keys = self._rms_norm(queries, layer.query_norm), self._rms_norm(keys, layer.key_norm)
        end = start + x_BTC.shape[1]
        if memory.keeps_rotated:
            keys = self._rotate(keys, start)
        keys, values = memory.join(index, keys, values, start)
        if not memory.keeps_rotated:
            keys = self._rotate(keys, 0)
        repeats = queries.shape[1] // keys.shape[1]
        if repeats > 1:
            keys, values = keys.repeat_interleave(repeats, dim=1), values.repeat_interleave(repeats, dim=1)
        mixed_BHTD = functional.scaled_dot_product_attention(
            self._rotate(queries, start), keys, values, attn_mask=memory.mask(end - start, keys.shape[2])
        )
        return functional.linear(mixed_BHTD.transpose(1, 2).flatten(2), *layer.output)

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        exact = x.float()
        exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.spec.rms_norm_eps)
        return weight * exact.to(x.dtype)

    def _rotate(self, x_BHTD: Tensor, start: int) -> Tensor:
        """The rotate-half form at positions from ``start`` on; cosines and sines are kept between forwards."""
        end = start + x_BHTD.shape[2]
        if end > len(self._cosines_LD):
            self._cosines_LD, self._sines_LD = self._angles(end)
        exact = x_BHTD.float()
        first, second = exact.chunk(2, dim=-1)
        turned = exact * self._cosines_LD[start:end] + torch.cat((-second, first), dim=-1) * self._sines_LD[start:end]
        return turned.to(x_BHTD.dtype)

    def _angles(self, length: int) -> tuple[Tensor, Tensor]:
        evens = torch.arange(0, self.spec.head_dim, 2, dtype=torch.float32)
        frequencies_D = (self.spec.rope_theta ** -(evens / self.spec.head_dim)).repeat(2)
        angles_LD = torch.arange(length, dtype=torch.float32)[:, None] * frequencies_D
        return angles_LD.cos(), angles_LD.sin()


def _layer(layer: TransformerLayer) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    assert isinstance(mlp, SwiGLU)
    packed, sizes = attention.qkv_proj, attention.qkv_proj.part_sizes
    biases = [None] * len(sizes) if packed.bias is None else [_copy(part) for part in packed.bias.split(sizes)]
    weights = [_copy(part) for part in packed.weight.split(sizes)]
    query, key, value = zip(weights, biases, strict=True)
    gate, up = (_copy(part) for part in mlp.gate_up_proj.weight.split(mlp.gate_up_proj.part_sizes))
    output = attention.o_proj
    return Layer(
        query=query,
        key=key,
        value=value,
        output=(_copy(output.weight), None if output.bias is None else _copy(output.bias)),
        gate=gate,
        up=up,
        down=_copy(mlp.down_proj.weight),
        attention_norm=_copy(layer.input_layernorm.weight),
        feed_forward_norm=_copy(layer.post_attention_layernorm.weight),
        query_norm=_weight_of(attention.q_norm),
        key_norm=_weight_of(attention.k_norm),
    )


def _weight_of(norm: nn.Module | None) -> Tensor | None:
    return None if norm is None else _copy(norm.get_parameter("weight"))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)
