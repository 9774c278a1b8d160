"""The network in training: shape, initial weights, compiled layers, loss of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from engine.attention.dense import DenseAttention
from engine.layers.routing import SoftmaxRouting
from engine.models.spec import DiffusionLM, ModelSpec, MoESpec
from engine.training.batches import Batch
from engine.training.data import SpecialIds
from engine.training.families import Family
from engine.training.flex import FlexAttention, flex_mask
from engine.training.losses import weighted_cross_entropy
from engine.training.presets import ExpertShape, Recipe
from engine.training.router_loss import RouterLoss

ROPE_THETA = 10000.0
NORM_EPS = 1e-6


def recipe_spec(recipe: Recipe, family: Family, ids: SpecialIds) -> ModelSpec:
    """The shape that a recipe asks for."""
    experts = recipe.experts
    return ModelSpec(
        architecture=family.architecture,
        attention=family.attention,
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size if experts is None else experts.width,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        num_kv_heads=recipe.num_heads,
        head_dim=recipe.hidden_size // recipe.num_heads,
        max_position_embeddings=recipe.max_length,
        rope_theta=ROPE_THETA,
        rms_norm_eps=NORM_EPS,
        tie_word_embeddings=False,
        attention_bias=False,
        mask_token_id=ids.mask,
        stop_token_ids=frozenset({ids.end}),
        block_length=recipe.block_length,
        moe=None if experts is None else _mixture(experts),
    )


def _mixture(experts: ExpertShape) -> MoESpec:
    """Routed as LLaDA-MoE routes: by softmax, not normalised."""
    return MoESpec(
        num_experts=experts.number,
        intermediate_size=experts.width,
        routing=SoftmaxRouting(experts_per_token=experts.per_token),
    )


AttentionMask = Tensor | BlockMask
HiddenStates = Callable[[DiffusionLM, Tensor, Tensor, AttentionMask], Tensor]


def hidden_states(model: DiffusionLM, tokens_RN: Tensor, positions_RN: Tensor, mask: AttentionMask) -> Tensor:
    """Hidden states ``[R * N, D]`` of a padded batch; ``mask`` is one of :func:`mask_of`."""
    rows, length = tokens_RN.shape
    attention = FlexAttention(rows, length, mask) if isinstance(mask, BlockMask) else DenseAttention(rows, length, mask)
    hidden_TD: Tensor = model(model.embed(tokens_RN.flatten()), positions_RN.flatten(), attention)
    return hidden_TD


def compiled_hidden_states() -> HiddenStates:
    """:func:`hidden_states`, compiled once for any number of rows and tokens."""
    return torch.compile(hidden_states, dynamic=True)


def device_of(model: DiffusionLM) -> torch.device:
    """Where the model's parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def mask_of(batch: Batch) -> AttentionMask:
    """Who sees whom: written out on a CPU; on CUDA by blocks of keys, so that its memory does not grow with N * N."""
    if batch.tokens_RN.is_cuda:
        return flex_mask(batch.blocks_RN, batch.noised_RN, batch.samples_RN)
    return batch.mask_R1NN


def batch_loss(
    model: DiffusionLM,
    batch: Batch,
    *,
    bfloat16: bool,
    compute_hidden: HiddenStates = hidden_states,
    router_loss: RouterLoss | None = None,
) -> Tensor:
    """Loss of one batch; products in bfloat16 where asked for, weights and loss in float32. ``router_loss``, which
    listens to the same model, is added."""
    with torch.autocast(batch.tokens_RN.device.type, torch.bfloat16, enabled=bfloat16):
        hidden_TD = compute_hidden(model, batch.tokens_RN, batch.positions_RN, mask_of(batch))
        logits_MV = model.compute_logits(hidden_TD[batch.indices_M])
    loss = weighted_cross_entropy(logits_MV, batch.targets_M, batch.weights_M, batch.normaliser)
    return loss if router_loss is None else loss + router_loss.take(batch.routed_T)
