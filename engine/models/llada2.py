"""LLaDA2.0, 2.1 and 2.2 (``LLaDA2MoeModelLM``): a mixture of experts run with a block-causal pattern.

Source: Bie et al., "LLaDA2.0: Scaling Up Diffusion Language Models to 100B" (arXiv 2512.15745), and the published
checkpoints' layout. Logits at position i predict token i. The pattern itself is the attention backend's.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.models import tensor_names
from engine.models.spec import CheckpointTensor, ModelSpec
from engine.models.transformer import Transformer
from engine.parallel import ALONE, Ranks

OUTER = {
    "model.word_embeddings.weight": "embed_tokens.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "lm_head.weight",
}
ATTENTION = {
    "query_key_value": "qkv_proj",
    "dense": "o_proj",
    "query_layernorm": "q_norm",
    "key_layernorm": "k_norm",
}


class LLaDA2Model(Transformer):
    """Query and key heads are normalised, then a part of each is rotated; queries, keys and values are stored fused."""

    def __init__(self, spec: ModelSpec, ranks: Ranks = ALONE) -> None:
        super().__init__(spec, ranks, qk_norm=True)

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        for name, parameter in OUTER.items():
            if self.lm_head is not None or parameter != "lm_head.weight":
                yield CheckpointTensor(name, parameter)
        for published, own, layer in tensor_names.layers(self):
            norms = ("input_layernorm.weight", "post_attention_layernorm.weight")
            yield from tensor_names.same_name(published, own, *norms)
            for name, parameter in ATTENTION.items():
                yield CheckpointTensor(f"{published}attention.{name}.weight", f"{own}self_attn.{parameter}.weight")
            yield from tensor_names.feed_forward_tensors(published + "mlp.", own + "mlp.", layer.mlp)

    def fused_tensors(self) -> Iterator[CheckpointTensor]:
        return tensor_names.fused_expert_tensors(self)
