"""How much memory a rank of a model takes, from the checkpoint's description and the engine's settings alone.

Weights and K/V are exact: they are what :mod:`engine.build` allocates. Activations are an upper bound of the largest
forward for dense attention without cross-request extras: decoders that compare distributions between steps (KLASS) and
soft embeddings keep some more per request.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.build import check_settings, make_block_manager, slot_length
from engine.config import EngineConfig, resolve_device, resolve_dtype, resolve_max_model_len
from engine.errors import ConfigError
from engine.iteration import MAX_ALIGNED_BLOCK_LENGTH
from engine.model_runner import MAX_LOGITS
from engine.models.checkpoint import Checkpoint
from engine.models.loader import build_model
from engine.models.spec import DiffusionLM, ModelSpec

LOGIT_BYTES = 10
"""Of a logit while candidates are made: in the model's type, in float32, and a working copy."""

DRAWING_BYTES = 40
"""Of a logit, in addition, while tokens are drawn: sorted values with their indices (top-p), probabilities, noise.
Measured with top_p on a CPU: 47 bytes with LOGIT_BYTES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes on one rank. ``slot_len`` positions belong to a slot, ``num_positions`` have K/V memory in all.

    ``drawing_bytes`` come on top where every request of a forward is sampled (temperature above 0).
    """

    weight_bytes: int
    kv_position_bytes: int
    slot_len: int
    num_slots: int
    num_positions: int
    activation_bytes: int
    logits_bytes: int
    drawing_bytes: int

    @property
    def kv_slot_bytes(self) -> int:
        return self.kv_position_bytes * self.slot_len

    @property
    def kv_bytes(self) -> int:
        return self.kv_position_bytes * self.num_positions

    @property
    def forward_bytes(self) -> int:
        return self.activation_bytes + self.logits_bytes

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.forward_bytes


def plan_checkpoint(checkpoint: Checkpoint, config: EngineConfig) -> MemoryPlan:
    """The plan of an engine on this machine; ConfigError as the engine itself would raise."""
    device = resolve_device(config)
    return plan_memory(checkpoint.spec, config, resolve_dtype(config, device, checkpoint.weights.dtype), device)


def plan_memory(spec: ModelSpec, config: EngineConfig, dtype: torch.dtype, device: torch.device) -> MemoryPlan:
    """The plan of a rank of the settings' layout: its part of the dense matrices and of the K/V heads (one head at
    least), and of the experts. The device need not be there. ConfigError: settings that the engine would refuse."""
    tensor, world = config.layout.tensor, config.layout.world_size
    _check_heads(spec, tensor)
    max_model_len = resolve_max_model_len(config, spec.max_position_embeddings)
    check_settings(spec, config, max_model_len)
    slot_len = slot_length(spec, max_model_len)
    blocks = make_block_manager(config, device, slot_len)
    tokens = min(config.max_num_batched_tokens, config.max_num_seqs * slot_len)
    logits = min(_open_positions(spec, config, slot_len), max(MAX_LOGITS // spec.vocab_size, 1)) * spec.vocab_size
    return MemoryPlan(
        weight_bytes=weight_bytes(build_model(spec), dtype, tensor, world),
        kv_position_bytes=2 * spec.num_layers * _kv_heads(spec, tensor) * spec.head_dim * dtype.itemsize,
        slot_len=slot_len,
        num_slots=config.max_num_seqs,
        num_positions=blocks.num_pages * blocks.page_size,
        activation_bytes=tokens * _activations(spec, config) * dtype.itemsize
        + _mask_bytes(spec, tokens, slot_len, dtype),
        logits_bytes=logits * LOGIT_BYTES // tensor,
        drawing_bytes=logits * DRAWING_BYTES // tensor,
    )


def weight_bytes(model: DiffusionLM, dtype: torch.dtype, tensor: int = 1, world: int = 1) -> int:
    """Bytes of a rank's parameters: a ``tensor``-th of the matrices, a ``world``-th of the stacked experts. Vectors
    (norms, biases) and what stays in float32 (routers) are on every rank."""
    total, seen = 0, set()
    for module in model.modules():
        exact = getattr(module, "float32_parameters", ())
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue  # tied
            seen.add(id(parameter))
            if name in exact:
                total += parameter.numel() * torch.float32.itemsize
            else:
                ranks = {1: 1, 2: tensor, 3: world}[parameter.dim()]
                total += -(-parameter.numel() // ranks) * dtype.itemsize
    return total + _repeated_kv_bytes(model.spec, dtype, tensor)


def _repeated_kv_bytes(spec: ModelSpec, dtype: torch.dtype, tensor: int) -> int:
    """What K/V projections take beyond a ``tensor``-th of them, where there are fewer heads than ranks."""
    surplus = _kv_heads(spec, tensor) - spec.num_kv_heads / tensor
    return round(2 * spec.num_layers * surplus * spec.head_dim * spec.hidden_size) * dtype.itemsize


def _kv_heads(spec: ModelSpec, tensor: int) -> int:
    return -(-spec.num_kv_heads // tensor)


def _open_positions(spec: ModelSpec, config: EngineConfig, slot_len: int) -> int:
    """Most positions that candidates are made for in a forward: one block per slot, as long as a request may ask."""
    longest = min(slot_len, MAX_ALIGNED_BLOCK_LENGTH) if spec.attention == "block_causal" else slot_len
    return min(config.max_num_batched_tokens, config.max_num_seqs * longest)


def _activations(spec: ModelSpec, config: EngineConfig) -> int:
    """Numbers per token that are alive at the worst moment of a layer, in the model's type."""
    tensor = config.layout.tensor
    projections = (-(-spec.num_heads // tensor) + 2 * _kv_heads(spec, tensor)) * spec.head_dim
    feed_forward = 4 * spec.intermediate_size // tensor  # gate and up, their activation, their product
    if spec.moe is not None:
        chosen = spec.moe.routing.experts_per_token
        routed = chosen * (2 * spec.hidden_size + 4 * spec.moe.intermediate_size)  # all of a token's on one rank
        feed_forward = max(routed, 4 * spec.moe.shared_intermediate_size // tensor, feed_forward)
    return 7 * spec.hidden_size + max(3 * projections, feed_forward)  # residual, input, output; a norm in float32


def _mask_bytes(spec: ModelSpec, tokens: int, slot_len: int, dtype: torch.dtype) -> int:
    """The prompt of a block-causal model is attended with a mask: flags, and what the kernel makes of them."""
    if spec.attention == "bidirectional":
        return 0
    group = spec.num_heads // spec.num_kv_heads
    return group * min(tokens, slot_len) * slot_len * (1 + dtype.itemsize)


def _check_heads(spec: ModelSpec, tensor: int) -> None:
    if spec.num_heads % tensor:
        message = f"tensor_parallel_size {tensor}: the {spec.num_heads} attention heads cannot be divided by it"
        raise ConfigError(message, "tensor_parallel_size")
