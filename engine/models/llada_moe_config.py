"""LLaDA-MoE's published ``config.json``. Its ``model_type`` is LLaDA's: only ``architectures`` tells them apart."""

from __future__ import annotations

from dataclasses import replace

from engine.errors import CheckpointError
from engine.layers.routing import SoftmaxRouting
from engine.models.family import ModelFamily, NetworkShape
from engine.models.json_fields import JsonFields
from engine.models.moe_config import experts_per_token, num_experts
from engine.models.spec import MoESpec
from engine.models.transformer_config import read_transformer_config


def read_llada_moe_config(config: JsonFields) -> NetworkShape:
    """``moe_layer_freq`` marks the layers that are mixtures (null: all); weights of the chosen experts are never
    normalised, whatever ``norm_topk_prob`` says."""
    _refuse_unsupported(config)
    expert_size = config.integer("expert_intermediate_size")
    dense_field = "dense_intermediate_size"
    shape = read_transformer_config(config, dense_field if config.get(dense_field) else "expert_intermediate_size")
    moe = MoESpec(
        num_experts=num_experts(config),
        intermediate_size=expert_size,
        routing=SoftmaxRouting(experts_per_token=experts_per_token(config)),
        dense_layers=_dense_layers(config, shape.num_layers),
    )
    return replace(shape, moe=moe)


def _dense_layers(config: JsonFields, num_layers: int) -> frozenset[int]:
    marks = config.integers("moe_layer_freq")
    if marks in ((), (1,)):
        return frozenset()
    if len(marks) != num_layers or set(marks) - {0, 1}:
        message = f"{config.file}: moe_layer_freq must hold a 0 or 1 for each of {num_layers} layers, found {marks}"
        raise CheckpointError(message, "moe_layer_freq")
    return frozenset(layer for layer, mark in enumerate(marks) if not mark)


def _refuse_unsupported(config: JsonFields) -> None:
    config.require("attention_bias", False)
    config.require("clip_qkv")
    config.require("qk_layernorm", True)
    config.require("partial_rotary_factor", 1, 1.0)
    config.require("shared_expert_intermediate_size", 0)
    config.require("moe_router_enable_expert_bias", False)
    config.require("moe_router_score_function", "softmax")
    config.require("routed_scaling_factor", 1, 1.0)


LLADA_MOE = ModelFamily(
    name="LLaDA-MoE",
    model="engine.models.llada_moe:LLaDAMoEModel",
    read_config=read_llada_moe_config,
    attention="bidirectional",
    block_length=32,
    head_tensor="lm_head.weight",
    mask_token_id=156895,
    end_of_turn=("<|role_end|>",),
)
