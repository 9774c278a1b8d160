"""Networks with random weights in shapes that matter: what a forward costs depends on shapes, not on values.

The output head is scaled up, so that confidences spread as those of a trained model do: the tokens are meaningless, but
how many positions a threshold fills at a step is not all or one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from engine.errors import InvalidRequestError
from engine.layers.routing import SoftmaxRouting
from engine.models.loader import build_model
from engine.models.spec import DiffusionLM, ModelSpec, MoESpec

WEIGHT_STD = 0.02
LOGIT_STD = 8.0
"""Spread of the logits: with it about every third position of a fresh block is sure of its token."""

_LLADA = ModelSpec(
    architecture="LLaDAModelLM",
    attention="bidirectional",
    vocab_size=126_464,
    hidden_size=256,
    intermediate_size=1024,
    num_layers=18,
    num_heads=4,
    num_kv_heads=4,
    head_dim=64,
    max_position_embeddings=8192,
    rope_theta=5e5,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    attention_bias=False,
    mask_token_id=126_336,
    stop_token_ids=frozenset(),
    block_length=32,
)
_SDAR = replace(
    _LLADA,
    architecture="SDARForCausalLM",
    attention="block_causal",
    vocab_size=65_536,
    hidden_size=448,
    intermediate_size=1344,
    num_layers=16,
    num_heads=7,
    num_kv_heads=7,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
    mask_token_id=65_000,
    block_length=4,
)
_MOE = replace(
    _LLADA,
    architecture="LLaDAMoEModelLM",
    vocab_size=32_768,
    num_layers=8,
    mask_token_id=32_000,
    moe=MoESpec(num_experts=16, intermediate_size=256, routing=SoftmaxRouting(experts_per_token=4)),
)
SHAPES: Mapping[str, ModelSpec] = {
    "llada-tiny": replace(
        _LLADA,
        vocab_size=4096,
        hidden_size=128,
        num_heads=2,
        num_kv_heads=2,
        num_layers=2,
        intermediate_size=256,
        mask_token_id=4000,
    ),
    "sdar-tiny": replace(
        _SDAR,
        vocab_size=4096,
        hidden_size=128,
        num_heads=2,
        num_kv_heads=2,
        num_layers=2,
        intermediate_size=256,
        mask_token_id=4000,
    ),
    "llada-83m": _LLADA,
    "llada-83m-deep": replace(
        _LLADA,
        vocab_size=8192,
        hidden_size=768,
        num_heads=12,
        num_kv_heads=12,
        num_layers=10,
        intermediate_size=2048,
        mask_token_id=8000,
    ),
    "llada-100m": replace(
        _LLADA,
        vocab_size=32_768,
        hidden_size=640,
        num_heads=10,
        num_kv_heads=10,
        num_layers=12,
        intermediate_size=1792,
        mask_token_id=32_000,
    ),
    "sdar-70m": _SDAR,
    "sdar-42m": replace(
        _SDAR,
        vocab_size=32_768,
        hidden_size=512,
        intermediate_size=1536,
        num_layers=8,
        num_heads=8,
        num_kv_heads=4,
        mask_token_id=32_000,
    ),
    "llada-moe-67m": _MOE,
    "llada-8b": replace(
        _LLADA, hidden_size=4096, intermediate_size=12_288, num_layers=32, num_heads=32, num_kv_heads=32, head_dim=128
    ),
    "llada-moe-7b-a1b": replace(
        _MOE,
        vocab_size=157_184,
        hidden_size=2048,
        num_layers=16,
        num_heads=16,
        num_kv_heads=16,
        head_dim=128,
        mask_token_id=156_895,
        moe=MoESpec(num_experts=64, intermediate_size=1024, routing=SoftmaxRouting(experts_per_token=8)),
    ),
}
"""Synthetic networks by name; the last two have the shapes of the published checkpoints. In llada-83m most work is the
output head's, in llada-83m-deep, which has as many parameters, the layers', as in large networks."""


def shape(name: str) -> ModelSpec:
    """The spec of a named shape; InvalidRequestError lists what there is."""
    try:
        return SHAPES[name]
    except KeyError:
        raise InvalidRequestError(f"unknown shape {name!r}; there are: {', '.join(SHAPES)}", "shape") from None


def random_model(spec: ModelSpec, dtype: torch.dtype, device: torch.device, seed: int = 0) -> DiffusionLM:
    """The network with seeded normal weights; norms are 1, biases 0. As in trained networks the mask is not likely:
    its row of the head is 0."""
    generator = torch.Generator(device).manual_seed(seed)
    model = build_model(spec).to_empty(device=device).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight") or "layernorm" in name:
            parameter.fill_(1.0)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.normal_(0.0, WEIGHT_STD, generator=generator)
    head = "embed_tokens.weight" if spec.tie_word_embeddings else "lm_head.weight"
    weight = dict(model.named_parameters())[head]
    weight.mul_(LOGIT_STD / (WEIGHT_STD * spec.hidden_size**0.5))
    weight[spec.mask_token_id] = 0.0
    return model.to(dtype).eval()
