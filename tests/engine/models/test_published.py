"""Full-size networks without storage: the names, shapes and sizes of the published checkpoints.

``published/*.json`` are the fields of the published configs that shape the network, with the published values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from engine.layers.division import held_parameters
from engine.models.json_fields import JsonFields
from engine.models.loader import build_model
from engine.models.matching import check_coverage
from engine.models.registry import FAMILIES, model_family, read_architecture
from engine.models.spec import DiffusionLM, ModelSpec
from engine.parallel import ALONE, ParallelLayout, Ranks, rank_without_others

CONFIGS = Path(__file__).parent / "published"


class Published(NamedTuple):
    """``tensors`` are some names and their shapes."""

    parameters: int
    num_tensors: int
    tensors: Mapping[str, tuple[int, ...]]


PUBLISHED = {
    "llada-8b": Published(
        8_015_581_184,
        291,
        {
            "model.transformer.wte.weight": (126464, 4096),
            "model.transformer.ff_out.weight": (126464, 4096),
            "model.transformer.ln_f.weight": (4096,),
            "model.transformer.blocks.31.attn_norm.weight": (4096,),
            "model.transformer.blocks.31.v_proj.weight": (4096, 4096),
            "model.transformer.blocks.31.ff_proj.weight": (12288, 4096),
            "model.transformer.blocks.31.ff_out.weight": (4096, 12288),
        },
    ),
    "llada-moe-7b-a1b": Published(
        7_356_880_896,
        3219,
        {
            "model.embed_tokens.weight": (157184, 2048),
            "lm_head.weight": (157184, 2048),
            "model.layers.15.self_attn.o_proj.weight": (2048, 2048),
            "model.layers.15.self_attn.q_norm.weight": (128,),
            "model.layers.15.mlp.gate.weight": (64, 2048),
            "model.layers.15.mlp.experts.63.up_proj.weight": (1024, 2048),
            "model.layers.15.mlp.experts.63.down_proj.weight": (2048, 1024),
        },
    ),
    "llada2.0-mini": Published(
        16_255_643_392,
        14_813,
        {
            "model.word_embeddings.weight": (157184, 2048),
            "model.layers.0.mlp.gate_proj.weight": (5120, 2048),
            "model.layers.0.attention.query_key_value.weight": (3072, 2048),
            "model.layers.1.attention.dense.weight": (2048, 2048),
            "model.layers.1.attention.key_layernorm.weight": (128,),
            "model.layers.1.mlp.gate.weight": (256, 2048),
            "model.layers.1.mlp.gate.expert_bias": (256,),
            "model.layers.19.mlp.experts.255.down_proj.weight": (2048, 512),
            "model.layers.19.mlp.shared_experts.up_proj.weight": (512, 2048),
        },
    ),
    "llada2.0-flash": Published(
        102_889_705_216,
        24_161,
        {
            "model.layers.0.mlp.down_proj.weight": (4096, 9216),
            "model.layers.31.attention.query_key_value.weight": (5120, 4096),
            "model.layers.31.mlp.experts.255.gate_proj.weight": (1024, 4096),
        },
    ),
    "dream-7b": Published(
        7_615_616_512,
        339,
        {
            "model.embed_tokens.weight": (152064, 3584),
            "model.layers.27.self_attn.q_proj.bias": (3584,),
            "model.layers.27.self_attn.k_proj.bias": (512,),
            "model.layers.27.self_attn.v_proj.weight": (512, 3584),
            "model.layers.27.mlp.down_proj.weight": (3584, 18944),
        },
    ),
    "sdar-4b": Published(
        4_411_424_256,
        399,
        {
            "lm_head.weight": (151936, 2560),
            "model.layers.35.self_attn.q_proj.weight": (4096, 2560),
            "model.layers.35.self_attn.k_norm.weight": (128,),
            "model.layers.35.self_attn.o_proj.weight": (2560, 4096),
        },
    ),
    "sdar-8b": Published(8_190_735_360, 399, {"model.layers.35.mlp.up_proj.weight": (12288, 4096)}),
    "sdar-30b-a3b": Published(
        30_532_122_624,
        18_867,
        {
            "model.layers.47.self_attn.k_proj.weight": (512, 2048),
            "model.layers.47.mlp.gate.weight": (128, 2048),
            "model.layers.47.mlp.experts.127.gate_proj.weight": (768, 2048),
        },
    ),
}


def build(name: str, ranks: Ranks = ALONE) -> DiffusionLM:
    """The network of a published config, without storage."""
    return build_model(published_spec(name), ranks=ranks)


def published_spec(name: str) -> ModelSpec:
    """The shape in a published config; ids and the head as the checkpoints have them."""
    config = JsonFields.read(CONFIGS / f"{name}.json")
    architecture = read_architecture(config)
    family = model_family(architecture)
    shape = family.read_config(config)
    return ModelSpec(
        architecture=architecture,
        attention=family.attention,
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_position_embeddings,
        rope_theta=shape.rope_theta,
        rms_norm_eps=shape.rms_norm_eps,
        tie_word_embeddings=bool(shape.tie_word_embeddings),
        attention_bias=shape.attention_bias,
        mask_token_id=0,
        stop_token_ids=frozenset(),
        block_length=family.block_length,
        rotary_dim=shape.rotary_dim,
        moe=shape.moe,
    )


def test_every_family_has_a_published_config() -> None:
    covered = {read_architecture(JsonFields.read(CONFIGS / f"{name}.json")) for name in PUBLISHED}
    assert covered == set(FAMILIES)
    assert {path.stem for path in CONFIGS.glob("*.json")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_shapes_and_size(name: str) -> None:
    model, published = build(name), PUBLISHED[name]
    parameters = dict(model.named_parameters())

    stored = {tensor.name: tuple(tensor.view(parameters).shape) for tensor in model.checkpoint_tensors()}

    assert {name: stored.get(name) for name in published.tensors} == published.tensors
    assert len(stored) == published.num_tensors
    assert sum(parameter.numel() for parameter in parameters.values()) == published.parameters
    assert sum(torch.Size(shape).numel() for shape in stored.values()) == published.parameters
    assert all(parameter.is_meta for parameter in parameters.values())


@pytest.mark.parametrize(
    ("name", "layout", "gigabytes"),
    [
        ("dream-7b", ParallelLayout(4), 3.8),  # 28 heads on 4: one key head per rank
        ("llada2.0-flash", ParallelLayout(8, 8), 25.8),  # 32 heads on 4: two ranks per key head
        ("sdar-30b-a3b", ParallelLayout(4, 8), 8.04),  # experts 29 B in eight parts, the rest 1.5 B in four
    ],
    ids=str,
)
def test_a_rank_of_a_full_size_model(name: str, layout: ParallelLayout, gigabytes: float) -> None:
    """Every parameter of the last rank has a source, and in bfloat16 it needs its share of the memory."""
    model = build(name, rank_without_others(layout, layout.world_size - 1))

    check_coverage(model, held_parameters(model), model.checkpoint_tensors())

    assert sum(parameter.numel() for parameter in model.parameters()) * 2e-9 == pytest.approx(gigabytes, rel=0.01)
