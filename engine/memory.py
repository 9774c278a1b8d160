"""How much memory a rank of a model takes, from the checkpoint's description and the engine's settings alone.

Weights and K/V are exact: they are what :mod:`engine.build` allocates. Activations are an upper bound of the largest
forward for dense attention without cross-request extras: decoders that compare distributions between steps (KLASS) and
soft embeddings keep some more per request.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.build import check_settings, make_block_manager, slot_length
from engine.config import EngineConfig, resolve_cuda_graphs, resolve_device, resolve_dtype, resolve_max_model_len
from engine.layout import MAX_ALIGNED_BLOCK_LENGTH
from engine.model_runner import MAX_LOGITS
from engine.models.checkpoint import Checkpoint
from engine.models.loader import build_model
from engine.models.quantization import quantized_bytes
from engine.models.spec import DiffusionLM, ModelSpec
from engine.parallel import rank_without_others

LOGIT_BYTES = 10
"""Of a logit while candidates are made: in the model's type, in float32, and a working copy."""

DRAWING_BYTES = 40
"""Of a logit, in addition, while tokens are drawn: sorted values with their indices (top-p), probabilities, noise.
Measured with top_p on a CPU: 47 bytes with LOGIT_BYTES."""

DIVIDED_DRAWING_BYTES = 60
"""The same where ranks share the vocabulary: the search for the cut keeps keys and sums of probabilities as well.
Measured: 61 bytes with LOGIT_BYTES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes on one rank. ``slot_len`` positions belong to a slot, ``num_positions`` have K/V memory in all.

    ``drawing_bytes`` come on top where every request of a forward is sampled (temperature above 0). ``graph_bytes`` are
    what the recorded steps keep for themselves: the largest one's activations and logits, which the smaller ones share.
    """

    weight_bytes: int
    kv_position_bytes: int
    slot_len: int
    num_slots: int
    num_positions: int
    activation_bytes: int
    logits_bytes: int
    drawing_bytes: int
    graph_bytes: int = 0

    @property
    def kv_slot_bytes(self) -> int:
        return self.kv_position_bytes * self.slot_len

    @property
    def kv_bytes(self) -> int:
        return self.kv_position_bytes * self.num_positions

    @property
    def forward_bytes(self) -> int:
        return self.activation_bytes + self.logits_bytes + self.graph_bytes

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.forward_bytes


def plan_checkpoint(checkpoint: Checkpoint, config: EngineConfig) -> MemoryPlan:
    """The plan of an engine on this machine; ConfigError as the engine itself would raise."""
    device = resolve_device(config)
    return plan_memory(checkpoint.spec, config, resolve_dtype(config, device, checkpoint.weights.dtype), device)


def plan_memory(spec: ModelSpec, config: EngineConfig, dtype: torch.dtype, device: torch.device) -> MemoryPlan:
    """The plan of the first rank of the settings' layout, which has the most where parts are not equal. The device need
    not be there. ConfigError: settings that the engine would refuse."""
    tensor = config.layout.tensor
    model = build_model(spec, ranks=rank_without_others(config.layout))
    max_model_len = resolve_max_model_len(config, spec.max_position_embeddings)
    check_settings(spec, config, max_model_len)
    slot_len = slot_length(spec, max_model_len)
    blocks = make_block_manager(config, device, slot_len)
    tokens = min(config.max_num_batched_tokens, config.max_num_seqs * slot_len)
    columns = -(-spec.vocab_size // tensor)
    recorded = config.max_num_seqs * spec.block_length if resolve_cuda_graphs(config, device) else 0
    recorded_logits = min(recorded, max(MAX_LOGITS // columns, 1)) * columns
    logits = min(_open_positions(spec, config, slot_len), max(MAX_LOGITS // columns, 1)) * columns
    return MemoryPlan(
        weight_bytes=weight_bytes(model, dtype, int8=config.quantization == "int8"),
        kv_position_bytes=2 * spec.num_layers * model.num_kv_heads * spec.head_dim * dtype.itemsize,
        slot_len=slot_len,
        num_slots=config.max_num_seqs,
        num_positions=(blocks.num_pages + (recorded > 0)) * blocks.page_size,
        graph_bytes=recorded * _activations(model, tensor) * dtype.itemsize + recorded_logits * LOGIT_BYTES,
        activation_bytes=tokens * _activations(model, tensor) * dtype.itemsize
        + _mask_bytes(spec, tokens, slot_len, dtype),
        logits_bytes=logits * LOGIT_BYTES,
        drawing_bytes=logits * (DRAWING_BYTES if tensor == 1 else DIVIDED_DRAWING_BYTES),
    )


def weight_bytes(model: DiffusionLM, dtype: torch.dtype, *, int8: bool = False) -> int:
    """Bytes of the parameters of a model, or of a rank's part of one; routers stay in float32. While int8 weights are
    made, the exact ones are there as well."""
    total, replaced = quantized_bytes(model) if int8 else (0, frozenset())
    seen = {id(parameter) for parameter in replaced}
    for module in model.modules():
        exact = getattr(module, "float32_parameters", ())
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:  # else tied
                seen.add(id(parameter))
                total += parameter.numel() * (torch.float32 if name in exact else dtype).itemsize
    return total


def _open_positions(spec: ModelSpec, config: EngineConfig, slot_len: int) -> int:
    """Most positions that candidates are made for in a forward: one block per slot, as long as a request may ask."""
    longest = min(slot_len, MAX_ALIGNED_BLOCK_LENGTH) if spec.attention == "block_causal" else slot_len
    return min(config.max_num_batched_tokens, config.max_num_seqs * longest)


def _activations(model: DiffusionLM, tensor: int) -> int:
    """Numbers per token that are alive at the worst moment of a layer, in the model's type."""
    spec = model.spec
    projections = (spec.num_heads // tensor + 2 * model.num_kv_heads) * spec.head_dim
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
