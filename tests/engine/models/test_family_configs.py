"""Published configs of each family to the numbers of the network, and what is refused by the name of its field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import CheckpointError, UnsupportedModelError
from engine.layers.routing import BlockRouting, SigmoidRouting, SoftmaxRouting
from engine.models.family import NetworkShape
from engine.models.json_fields import JsonFields
from engine.models.registry import model_family

CONFIGS = Path(__file__).parent / "published"


def read(name: str, **changes: object) -> NetworkShape:
    """The shape that a published config says, with other values for some fields."""
    config = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")) | changes
    return model_family(config["architectures"][0]).read_config(JsonFields("config.json", config))


def test_dream() -> None:
    shape = read("dream-7b")

    assert (shape.num_heads, shape.num_kv_heads, shape.head_dim) == (28, 4, 128)
    assert shape.attention_bias
    assert shape.moe is None
    assert shape.rotary_dim is None


def test_llada_moe() -> None:
    moe = read("llada-moe-7b-a1b").moe

    assert moe is not None
    assert moe.routing == SoftmaxRouting(experts_per_token=8, normalize=False)
    assert (moe.num_experts, moe.intermediate_size, moe.shared_intermediate_size) == (64, 1024, 0)
    assert not moe.dense_layers


def test_llada_moe_layers_may_be_dense() -> None:
    shape = read("llada-moe-7b-a1b", moe_layer_freq=[0, 0] + [1] * 14)

    assert shape.moe is not None
    assert shape.moe.dense_layers == {0, 1}
    assert shape.intermediate_size == 8192


def test_llada2() -> None:
    shape = read("llada2.0-mini")

    assert shape.rotary_dim == 64
    assert shape.moe is not None
    assert shape.moe.routing == SigmoidRouting(experts_per_token=8, num_groups=8, groups_per_token=4, scale=2.5)
    assert shape.moe.dense_layers == {0}
    assert shape.moe.expert_bias
    assert shape.moe.shared_intermediate_size == 512


def test_llada2_with_block_routing() -> None:
    moe = read("llada2.0-flash", expert_capacity=48, block_size=32).moe

    assert moe is not None
    assert moe.routing == BlockRouting(experts_per_token=8, capacity=48, scale=2.5)


def test_llada2_without_shared_experts() -> None:
    moe = read("llada2.0-mini", num_shared_experts=None).moe

    assert moe is not None
    assert moe.shared_intermediate_size == 0


def test_partial_rotation_in_newer_files() -> None:
    newer = {"rope_type": "default", "rope_theta": 6e5, "partial_rotary_factor": 0.25}

    shape = read("llada2.0-mini", rope_theta=None, partial_rotary_factor=None, rope_parameters=newer)

    assert (shape.rope_theta, shape.rotary_dim) == (6e5, 32)


def test_sdar_moe() -> None:
    moe = read("sdar-30b-a3b").moe

    assert moe is not None
    assert moe.routing == SoftmaxRouting(experts_per_token=8, normalize=True)
    assert not moe.dense_layers
    every_third = read("sdar-30b-a3b", num_hidden_layers=7, decoder_sparse_step=3, mlp_only_layers=[2]).moe
    assert every_third is not None
    assert every_third.dense_layers == {0, 1, 2, 3, 4, 6}


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("dream-7b", "rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("dream-7b", "use_sliding_window", True),
        ("dream-7b", "hidden_act", "gelu"),
        ("llada-moe-7b-a1b", "clip_qkv", 8.0),
        ("llada-moe-7b-a1b", "attention_bias", True),
        ("llada-moe-7b-a1b", "qk_layernorm", False),
        ("llada-moe-7b-a1b", "partial_rotary_factor", 0.5),
        ("llada-moe-7b-a1b", "shared_expert_intermediate_size", 1024),
        ("llada-moe-7b-a1b", "moe_router_enable_expert_bias", True),
        ("llada-moe-7b-a1b", "moe_router_score_function", "sigmoid"),
        ("llada-moe-7b-a1b", "routed_scaling_factor", 2.5),
        ("llada2.0-mini", "use_qkv_bias", True),
        ("llada2.0-mini", "use_bias", True),
        ("llada2.0-mini", "use_qk_norm", False),
        ("llada2.0-mini", "norm_head", True),
        ("llada2.0-mini", "score_function", "softmax"),
        ("llada2.0-mini", "router_dtype", "bf16"),
        ("llada2.0-mini", "norm_topk_prob", False),
        ("sdar-30b-a3b", "layer_types", ["sliding_attention"] * 48),
        ("sdar-30b-a3b", "rope_scaling", {"type": "linear", "factor": 2.0}),
    ],
)
def test_what_the_network_lacks_is_refused(name: str, field: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError, match=field) as caught:
        read(name, **{field: value})

    assert caught.value.param == field


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("llada-moe-7b-a1b", "num_experts_per_tok", 65),
        ("llada-moe-7b-a1b", "moe_layer_freq", [1] * 15),
        ("llada-moe-7b-a1b", "moe_layer_freq", [2] * 16),
        ("llada2.0-mini", "n_group", 7),
        ("llada2.0-mini", "n_group", 256),
        ("llada2.0-mini", "topk_group", 9),
        ("llada2.0-mini", "partial_rotary_factor", 1.5),
        ("llada2.0-mini", "partial_rotary_factor", 0.01),
        ("llada2.0-mini", "expert_capacity", 7),
        ("llada2.0-mini", "expert_capacity", 257),
        ("sdar-30b-a3b", "num_experts", None),
        ("sdar-30b-a3b", "moe_intermediate_size", 0),
        ("sdar-30b-a3b", "mlp_only_layers", "all"),
    ],
)
def test_a_wrong_value_is_named(name: str, field: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=field) as caught:
        read(name, **{field: value})

    assert caught.value.param == field
