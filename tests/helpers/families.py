"""A tiny checkpoint of every family, each with what its networks can have, to be divided over ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from engine.layers.routing import BlockRouting, SigmoidRouting, SoftmaxRouting
from engine.models.loader import build_model, load_model, save_model
from engine.models.spec import DiffusionLM, ModelSpec, MoESpec
from engine.parallel import ALONE, ParallelLayout, Ranks

MASK, EOS = 49, 48

_LLADA = ModelSpec(
    architecture="LLaDAModelLM",
    attention="bidirectional",
    vocab_size=51,
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
    block_length=4,
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
        shared_intermediate_size=12,
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
    """Weights of a family's network under its published names, drawn from a normal distribution; norms are near 1."""
    model = build_model(FAMILIES[name]).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.3 if parameter.dim() > 1 else 1 + 0.1 * noise)
    save_model(model, folder, torch.float32)
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
