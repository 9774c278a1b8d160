"""Initial weights."""

from __future__ import annotations

import torch

from engine.models.spec import DiffusionLM
from engine.training.families import Family
from engine.training.optim import EMBEDDING, HEAD

HEAD_SCALE = 0.02
RESIDUAL_SCALE = 0.1


@torch.no_grad()
def initialise(model: DiffusionLM, family: Family, generator: torch.Generator) -> None:
    """Normal weights of variance 1 / columns, norms 1, embeddings of variance 1.

    The head starts as a small copy of the embedding: a model that passes a token through already predicts it, and
    copying from the prompt is learned many times sooner.
    """
    parameters = dict(model.named_parameters())
    tensors = {tensor.name: tensor.view(parameters) for tensor in model.checkpoint_tensors()}
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            tensor.fill_(1.0)
        else:
            scale = RESIDUAL_SCALE if name.endswith(family.residual_outputs) else 1.0
            tensor.normal_(std=scale * tensor.shape[1] ** -0.5, generator=generator)
    embedding = parameters[EMBEDDING].normal_(generator=generator)
    parameters[HEAD].copy_(HEAD_SCALE * embedding)
