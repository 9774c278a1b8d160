"""LLaDA-MoE (``LLaDAMoEModelLM``), distilled (TD) or not: a mixture of experts without any attention mask.

Source: Zhu et al., "LLaDA-MoE: A Sparse MoE Diffusion Language Model" (arXiv 2509.24389), and the published
checkpoints' layout. Logits at position i predict token i.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.models import tensor_names
from engine.models.spec import CheckpointTensor, ModelSpec
from engine.models.transformer import Transformer
from engine.parallel import ALONE, Ranks


class LLaDAMoEModel(Transformer):
    """Query and key heads are normalised; the published biases are all absent."""

    def __init__(self, spec: ModelSpec, ranks: Ranks = ALONE) -> None:
        super().__init__(spec, ranks, qk_norm=True)

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        return tensor_names.llama_tensors(self)

    def fused_tensors(self) -> Iterator[CheckpointTensor]:
        return tensor_names.fused_expert_tensors(self)
