"""Weights of a loaded network in int8: the projections of all layers and the output head.

Norms, biases, the embedding table and K/V keep their type. A tied table is kept in both forms: as the head it is
multiplied, as the table it is looked up.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from engine.errors import ConfigError
from engine.layers.embedding import Embedding
from engine.layers.linear import Linear, PackedLinear
from engine.models.spec import DiffusionLM, ModelSpec
from engine.models.transformer import Transformer


def check_quantizable(spec: ModelSpec) -> None:
    """ConfigError where a network's products cannot be done in int8."""
    if spec.moe is not None:
        raise ConfigError("quantization int8 does not cover mixtures of experts; use none", "quantization")


def quantize_int8(model: DiffusionLM) -> DiffusionLM:
    """Replace the weights, one after the other; a rank quantises its own part of them."""
    for module, keep in list(quantized_modules(model)):
        if isinstance(module, Embedding):
            module.quantize(keep=keep)
        else:
            module.quantize()
    return model


def quantized_modules(model: DiffusionLM) -> Iterator[tuple[Linear | PackedLinear | Embedding, bool]]:
    """What has an int8 weight, and whether it keeps the exact one as well."""
    assert isinstance(model, Transformer)
    for module in model.modules():
        if isinstance(module, (Linear, PackedLinear)):
            yield module, False
    if model.lm_head is None:
        yield model.embed_tokens, True
    else:
        yield model.lm_head, False


def quantized_bytes(model: DiffusionLM) -> tuple[int, frozenset[nn.Parameter]]:
    """Bytes of all int8 weights and their scales, and the exact parameters that they replace."""
    total = 0
    replaced: set[nn.Parameter] = set()
    for module, keeps in quantized_modules(model):
        total += module.weight.numel() + 4 * len(module.weight)
        if not keeps:
            replaced.add(module.weight)
    return total, frozenset(replaced)
