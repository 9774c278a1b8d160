"""SDAR (``SDARForCausalLM``): Qwen3's network run with a block-causal pattern.

Source: Cheng et al., "SDAR: A Synergistic Diffusion-AutoRegression Paradigm" (arXiv 2510.06303), and the published
checkpoints' layout. Logits at position i predict token i (no shift). The pattern itself is the attention backend's.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.models import tensor_names
from engine.models.spec import CheckpointTensor, ModelSpec
from engine.models.transformer import Transformer
from engine.parallel import ALONE, Ranks


class SDARModel(Transformer):
    """``attention_bias`` adds a bias to all four attention projections, the output projection included."""

    def __init__(self, spec: ModelSpec, ranks: Ranks = ALONE) -> None:
        super().__init__(spec, ranks, qk_norm=True, output_bias=spec.attention_bias)

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        return tensor_names.llama_tensors(self)
