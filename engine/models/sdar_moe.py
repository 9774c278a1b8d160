"""SDAR-MoE (``SDARMoeForCausalLM``): Qwen3-MoE's network run with a block-causal pattern.

Source: as SDAR's. A layer's experts have the names of small MLPs; nothing else differs from the dense network.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.models import tensor_names
from engine.models.sdar import SDARModel
from engine.models.spec import CheckpointTensor


class SDARMoEModel(SDARModel):
    """Layers are dense or mixtures as ``spec.moe`` says; there are no shared experts."""

    def fused_tensors(self) -> Iterator[CheckpointTensor]:
        return tensor_names.fused_expert_tensors(self)
