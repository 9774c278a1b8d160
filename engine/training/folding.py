"""Start a LLaDA network from a trained SDAR network of the same shape.

Both are the same transformer but for one thing: SDAR divides each query and key head by its root mean square. That norm
varies little from token to token, so its mean, measured on a few samples, is folded into the projections together with
the norm's weights. What the network knows survives; the full-attention objective then takes a short training.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from engine.models.llada import LLaDAModel
from engine.models.sdar import SDARModel
from engine.models.transformer import TransformerLayer
from engine.training.network import hidden_states
from engine.training.recording import recorded_inputs, typical_batch

PARTS = ("q_norm", "k_norm")
"""Norms of the first and second part of the packed query/key/value projection."""


class NormPlace(NamedTuple):
    """One of the norms of a layer."""

    layer: int
    norm: str


@torch.no_grad()
def fold_into_llada(source: SDARModel, target: LLaDAModel, tokenizer: Tokenizer) -> None:
    """Fill ``target`` from ``source``."""
    parameters = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        parameter.copy_(parameters[name])
    scales = _mean_scales(source, tokenizer)
    for index, layer in enumerate(target.layers):
        assert isinstance(layer, TransformerLayer)
        projection = layer.self_attn.qkv_proj
        for norm, (start, end) in zip(PARTS, projection.rows[:2], strict=True):
            weight_D = parameters[f"layers.{index}.self_attn.{norm}.weight"]
            rows_HD = scales[NormPlace(index, norm)][:, None] * weight_D[None, :]
            projection.weight[start:end] *= rows_HD.reshape(-1, 1)


def _mean_scales(model: SDARModel, tokenizer: Tokenizer) -> dict[NormPlace, Tensor]:
    """Mean of 1 / root mean square ``[H]`` of each head, over clean and noised tokens."""
    batch = typical_batch(tokenizer)
    norms = {index: layer.get_submodule("input_layernorm") for index, layer in enumerate(model.layers)}
    with recorded_inputs(norms) as inputs:
        hidden_states(model, batch.tokens_RN, batch.positions_RN, batch.mask_R1NN)
    scales = {}
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, TransformerLayer)
        attention = layer.self_attn
        parts = attention.qkv_proj(layer.input_layernorm(inputs[index][batch.real_T]))
        for norm, part in zip(PARTS, parts[:2], strict=True):
            x_THD = part.unflatten(-1, (-1, attention.head_dim))
            scales[NormPlace(index, norm)] = x_THD.square().mean(-1).rsqrt().mean(0)
    return scales
