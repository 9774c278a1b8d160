"""A tiny checkpoint of every family, each with what its networks can have, to be divided over ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from engine.config import EngineConfig
from engine.layers.routing import BlockRouting, SigmoidRouting, SoftmaxRouting
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import build_model, load_model, save_model
from engine.models.spec import DiffusionLM, ModelSpec, MoESpec
from engine.parallel import ALONE, ParallelLayout, Ranks
from tests.helpers.checkpoints import LLADA_CONFIG, write_json

MASK, EOS = 290, 291
BLOCK_LENGTH = 4

_LLADA = ModelSpec(
    architecture="LLaDAModelLM",
    attention="bidirectional",
    vocab_size=301,
    hidden_size=32,
    intermediate_size=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    rope_theta=1e4,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
    attention_bias=False,
    mask_token_id=MASK,
    stop_token_ids=frozenset({EOS}),
    block_length=BLOCK_LENGTH,
)
_MOE = MoESpec(
    num_experts=8, intermediate_size=16, routing=SoftmaxRouting(experts_per_token=2), dense_layers=frozenset({0})
)
_LLADA2 = replace(
    _LLADA,
    architecture="LLaDA2MoeModelLM",
    attention="block_causal",
    rotary_dim=4,
    moe=replace(
        _MOE,
        routing=SigmoidRouting(experts_per_token=3, num_groups=4, groups_per_token=2, scale=2.5),
        expert_bias=True,
        shared_intermediate_size=32,
    ),
)
_SDAR = replace(_LLADA, architecture="SDARForCausalLM", attention="block_causal", attention_bias=True)

FAMILIES: Mapping[str, ModelSpec] = {
    "llada": _LLADA,
    "llada tied": replace(_LLADA, tie_word_embeddings=True, num_kv_heads=4),
    "dream": replace(_LLADA, architecture="DreamModel", attention_bias=True, logit_shift=1),
    "sdar": _SDAR,
    "sdar tied": replace(_SDAR, tie_word_embeddings=True, attention_bias=False),
    "llada-moe": replace(_LLADA, architecture="LLaDAMoEModelLM", moe=_MOE),
    "llada2 groups": _LLADA2,
    "llada2 blocks": replace(
        _LLADA2,
        moe=replace(
            _LLADA2.moe or _MOE, routing=BlockRouting(experts_per_token=2, capacity=4), shared_intermediate_size=16
        ),
    ),
    "sdar-moe": replace(
        _SDAR,
        architecture="SDARMoeForCausalLM",
        moe=replace(_MOE, routing=SoftmaxRouting(experts_per_token=2, normalize=True), dense_layers=frozenset()),
    ),
}


def write_family(name: str, folder: Path) -> Path:
    """A checkpoint in the family's published layout. Weights are drawn from a normal distribution; norms are near 1."""
    spec = FAMILIES[name]
    model = build_model(spec).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.3 if parameter.dim() > 1 else 1 + 0.1 * noise)
    save_model(model, folder, torch.float32)
    write_json(folder / "config.json", published_config(spec))
    understood = open_checkpoint(folder, EngineConfig(block_length=BLOCK_LENGTH)).spec
    assert understood == replace(spec, preset_family=understood.preset_family)
    return folder


def load_family(name: str, folder: Path, ranks: Ranks = ALONE) -> DiffusionLM:
    return load_model(folder, FAMILIES[name], torch.float32, "cpu", ranks=ranks)


def layouts(spec: ModelSpec) -> list[ParallelLayout]:
    """Every kind of layout that suits a family: fewer key heads than ranks, more experts' ranks than tensor ranks and
    the other way round, parts of unequal size, both dispatches."""
    if spec.moe is None:
        return [ParallelLayout(2), ParallelLayout(4)]
    pairs = ((2, 1), (1, 2), (2, 2), (2, 4), (4, 2), (1, 3))
    both = [ParallelLayout(tensor, expert) for tensor, expert in pairs]
    return both + [replace(one, dispatch="all_to_all") for one in both if one.tensor <= one.expert]


def published_config(spec: ModelSpec) -> dict[str, object]:
    """The ``config.json`` that a family would have published."""
    common: dict[str, object] = {
        "architectures": [spec.architecture],
        "vocab_size": spec.vocab_size,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_theta": spec.rope_theta,
        "mask_token_id": MASK,
        "eos_token_id": EOS,
    }
    if spec.architecture == "LLaDAModelLM":
        return {**LLADA_CONFIG, **common, **_llada_names(spec)}
    return {**common, **_transformers_names(spec), **(_moe_names(spec.architecture, spec.moe) if spec.moe else {})}


def _llada_names(spec: ModelSpec) -> dict[str, object]:
    return {
        "d_model": spec.hidden_size,
        "n_layers": spec.num_layers,
        "n_heads": spec.num_heads,
        "n_kv_heads": spec.num_kv_heads,
        "mlp_hidden_size": spec.intermediate_size,
        "max_sequence_length": spec.max_position_embeddings,
        "weight_tying": spec.tie_word_embeddings,
    }


def _transformers_names(spec: ModelSpec) -> dict[str, object]:
    return {
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "intermediate_size": spec.intermediate_size,
        "max_position_embeddings": spec.max_position_embeddings,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "attention_bias": spec.attention_bias,
        "hidden_act": "silu",
    }


def _moe_names(architecture: str, moe: MoESpec) -> dict[str, object]:
    names: dict[str, object] = {
        "num_experts": moe.num_experts,
        "num_experts_per_tok": moe.routing.experts_per_token,
        "moe_intermediate_size": moe.intermediate_size,
    }
    if architecture == "LLaDAMoEModelLM":
        names |= {"expert_intermediate_size": moe.intermediate_size, "dense_intermediate_size": 24}
        names |= {"moe_layer_freq": [0, 1], "qk_layernorm": True, "moe_router_score_function": "softmax"}
        names |= {"partial_rotary_factor": 1, "routed_scaling_factor": 1}
    if isinstance(moe.routing, SigmoidRouting):
        names |= {"num_shared_experts": moe.shared_intermediate_size // moe.intermediate_size, "use_qk_norm": True}
        names |= {"first_k_dense_replace": 1, "partial_rotary_factor": 0.5, "norm_topk_prob": True}
        names |= {"moe_router_enable_expert_bias": True, "score_function": "sigmoid", "router_dtype": "fp32"}
        names |= {"n_group": moe.routing.num_groups, "topk_group": moe.routing.groups_per_token}
        names |= {"routed_scaling_factor": moe.routing.scale}
    if isinstance(moe.routing, BlockRouting):
        names["expert_capacity"] = moe.routing.capacity
    if isinstance(moe.routing, SoftmaxRouting):
        names.setdefault("norm_topk_prob", moe.routing.normalize)
    return names
