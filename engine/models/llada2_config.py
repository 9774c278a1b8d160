"""LLaDA2's published ``config.json`` (2.0, 2.1, 2.2). ``expert_capacity`` tells 2.2's block routing."""

from __future__ import annotations

from dataclasses import replace

from engine.errors import CheckpointError
from engine.layers.routing import BlockRouting, RoutingRule, SigmoidRouting
from engine.models.family import ModelFamily, NetworkShape
from engine.models.json_fields import JsonFields
from engine.models.moe_config import experts_per_token, num_experts
from engine.models.spec import MoESpec
from engine.models.transformer_config import read_transformer_config, rope_parameters


def read_llada2_config(config: JsonFields) -> NetworkShape:
    """The first ``first_k_dense_replace`` layers are dense; the shared experts are ``num_shared_experts`` times as wide
    as a routed one."""
    _refuse_unsupported(config)
    shape = read_transformer_config(config)
    expert_size = config.integer("moe_intermediate_size")
    num_dense = min(config.optional_integer("first_k_dense_replace") or 0, shape.num_layers)
    moe = MoESpec(
        num_experts=num_experts(config),
        intermediate_size=expert_size,
        routing=_routing(config),
        expert_bias=config.optional_flag("moe_router_enable_expert_bias") or False,
        shared_intermediate_size=expert_size * (config.optional_integer("num_shared_experts") or 0),
        dense_layers=frozenset(range(num_dense)),
    )
    return replace(shape, rotary_dim=_rotary_dim(config, shape.head_dim), moe=moe)


def _rotary_dim(config: JsonFields, head_dim: int) -> int:
    name = "partial_rotary_factor"
    factor = config.positive(name, rope_parameters(config).positive(name, 1.0))
    rotary_dim = int(head_dim * factor)
    if not 2 <= rotary_dim <= head_dim or rotary_dim % 2:
        message = f"{config.file}: {name} {factor} would rotate {rotary_dim} of {head_dim} dimensions of a head"
        raise CheckpointError(message, name)
    return rotary_dim


def _routing(config: JsonFields) -> RoutingRule:
    chosen, available = experts_per_token(config), num_experts(config)
    scale = config.positive("routed_scaling_factor", 1.0)
    capacity = config.optional_integer("expert_capacity", minimum=1)
    if capacity is not None:
        if not chosen <= capacity <= available:
            message = f"{config.file}: expert_capacity {capacity} must be {chosen} to {available}"
            raise CheckpointError(message, "expert_capacity")
        return BlockRouting(experts_per_token=chosen, scale=scale, capacity=capacity)
    num_groups = config.optional_integer("n_group", minimum=1) or 1
    groups_per_token = config.optional_integer("topk_group", minimum=1) or num_groups
    _check_groups(config, num_groups, groups_per_token, chosen)
    return SigmoidRouting(
        experts_per_token=chosen, num_groups=num_groups, groups_per_token=groups_per_token, scale=scale
    )


def _check_groups(config: JsonFields, num_groups: int, groups_per_token: int, chosen: int) -> None:
    group_size, rest = divmod(num_experts(config), num_groups)
    if rest or group_size < 2:
        message = f"{config.file}: n_group {num_groups} must divide num_experts into groups of two or more"
        raise CheckpointError(message, "n_group")
    if groups_per_token > num_groups or groups_per_token * group_size < chosen:
        message = f"{config.file}: topk_group {groups_per_token} of {num_groups} groups cannot give {chosen} experts"
        raise CheckpointError(message, "topk_group")


def _refuse_unsupported(config: JsonFields) -> None:
    config.require("use_qkv_bias", False)
    config.require("use_bias", False)
    config.require("use_qk_norm", True)
    config.require("norm_head", False)
    config.require("score_function", "sigmoid")
    config.require("router_dtype", "fp32")
    config.require("norm_topk_prob", True)


LLADA2 = ModelFamily(
    name="LLaDA2",
    model="engine.models.llada2:LLaDA2Model",
    read_config=read_llada2_config,
    attention="block_causal",
    block_length=32,
    head_tensor="lm_head.weight",
    mask_token_id=156895,
    end_of_turn=("<|role_end|>",),
)
