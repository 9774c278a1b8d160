"""Initial weights."""

from __future__ import annotations

import torch

from engine.models.spec import DiffusionLM

HEAD_SCALE = 0.02


@torch.no_grad()
def initialise(model: DiffusionLM, embedding_names: tuple[str, str], generator: torch.Generator) -> None:
    """Normal weights of variance 1 / columns, norms 1, embeddings of variance 1.

    The head starts as a small copy of the embedding: a model that passes a token through already predicts it, and
    copying from the prompt is learned many times sooner.
    """
    embedding_name, head_name = embedding_names
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(std=parameter.shape[1] ** -0.5, generator=generator)
    for name, parameter in parameters.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.mul_(0.1)
        if name.endswith("bias"):
            parameter.zero_()
    embedding = parameters[embedding_name]
    embedding.normal_(generator=generator)
    parameters[head_name].copy_(HEAD_SCALE * embedding)
