"""Dream (``DreamModel``), DiffuCoder and Dream-Coder: Qwen2's network without any attention mask.

Source: Ye et al., "Dream 7B: Diffusion Large Language Models" (arXiv 2508.15487), and the published checkpoints'
layout. Logits at position i - 1 predict token i (``spec.logit_shift``); the network itself knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.models import tensor_names
from engine.models.spec import CheckpointTensor, ModelSpec
from engine.models.transformer import Transformer
from engine.parallel import ALONE, Ranks


class DreamModel(Transformer):
    """Queries, keys and values have a bias, the output projection has none."""

    def __init__(self, spec: ModelSpec, ranks: Ranks = ALONE) -> None:
        super().__init__(spec, ranks, qk_norm=False)

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        return tensor_names.llama_tensors(self)
