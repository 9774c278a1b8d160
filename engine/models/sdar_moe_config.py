"""SDAR-MoE's published ``config.json``: Qwen3-MoE's fields."""

from __future__ import annotations

from dataclasses import replace

from engine.layers.routing import SoftmaxRouting
from engine.models.family import NetworkShape
from engine.models.json_fields import JsonFields
from engine.models.moe_config import experts_per_token, num_experts
from engine.models.sdar_config import SDAR, read_sdar_config
from engine.models.spec import MoESpec


def read_sdar_moe_config(config: JsonFields) -> NetworkShape:
    """Layer i is a mixture unless ``mlp_only_layers`` lists it or ``decoder_sparse_step`` does not divide i + 1."""
    shape = read_sdar_config(config)
    step = config.optional_integer("decoder_sparse_step", minimum=1) or 1
    dense = set(config.integers("mlp_only_layers"))
    if step > 1:
        dense |= {layer for layer in range(shape.num_layers) if (layer + 1) % step}
    routing = SoftmaxRouting(
        experts_per_token=experts_per_token(config),
        normalize=config.optional_flag("norm_topk_prob") or False,
    )
    moe = MoESpec(
        num_experts=num_experts(config),
        intermediate_size=config.integer("moe_intermediate_size"),
        routing=routing,
        dense_layers=frozenset(dense),
    )
    return replace(shape, moe=moe)


SDAR_MOE = replace(SDAR, name="SDAR-MoE", model="engine.models.sdar_moe:SDARMoEModel", read_config=read_sdar_moe_config)
