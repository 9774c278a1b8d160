"""Muon for the hidden matrices, AdamW for embeddings, head and norms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.models.spec import DiffusionLM
from engine.training.families import Family

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
EMBEDDING_BOOST = 2.5


def orthogonalise(matrices_KRC: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrices, approximately, by a quintic Newton-Schulz iteration (Jordan et al., Muon)."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices_KRC.shape[-2] > matrices_KRC.shape[-1]
    x = matrices_KRC.mT if tall else matrices_KRC
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = (x.mT if tall else x).float()
    return result


@dataclass(frozen=True, slots=True)
class MatrixPart:
    """Rows ``[start, end)`` of a parameter: one projection, also where several are packed."""

    parameter: Tensor
    start: int
    end: int


class Muon:
    """Momentum, orthogonalised per projection. Parts of one shape are orthogonalised together."""

    def __init__(self, parts: Iterable[MatrixPart], momentum: float = 0.95) -> None:
        self._momentum = momentum
        self._groups: dict[tuple[int, int], list[MatrixPart]] = {}
        for part in parts:
            self._groups.setdefault((part.end - part.start, part.parameter.shape[1]), []).append(part)
        self._buffers = {shape: torch.zeros(len(parts), *shape) for shape, parts in self._groups.items()}

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update every part; wide matrices move by ``learning_rate`` in spectral norm, tall ones by sqrt(rows/columns)
        times as much."""
        for (rows, columns), parts in self._groups.items():
            gradients = torch.stack([_gradient(part) for part in parts])
            buffer = self._buffers[rows, columns]
            buffer.lerp_(gradients, 1 - self._momentum)
            update = orthogonalise(gradients.lerp(buffer, self._momentum))
            scale = learning_rate * max(1.0, rows / columns) ** 0.5
            for part, delta in zip(parts, update, strict=True):
                part.parameter[part.start : part.end].sub_(delta, alpha=scale)


def _gradient(part: MatrixPart) -> Tensor:
    assert part.parameter.grad is not None
    return part.parameter.grad[part.start : part.end]


class Optimiser:
    """Both optimisers of a model; learning rates are given per step as a share of their peaks."""

    def __init__(self, model: DiffusionLM, family: Family, muon_rate: float, adam_rate: float) -> None:
        """The embedding learns 2.5 times as fast as the rest of AdamW's parameters."""
        self._model = model
        self._muon_rate = muon_rate
        parameters = dict(model.named_parameters())
        places = {tensor.name: tensor for tensor in model.checkpoint_tensors()}
        embedding, head = (parameters[places.pop(name).parameter] for name in (family.embedding, family.head))
        self._muon = Muon(
            MatrixPart(parameter, place.start, place.end or parameter.shape[0])
            for place in places.values()
            if (parameter := parameters[place.parameter]).ndim == 2
        )
        vectors = [parameter for parameter in parameters.values() if parameter.ndim == 1]
        self._adam = torch.optim.AdamW(
            [
                {"params": [embedding], "peak": EMBEDDING_BOOST * adam_rate},
                {"params": [head, *vectors], "peak": adam_rate},
            ],
            lr=adam_rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
        )

    def step(self, share: float) -> None:
        """Apply the gradients at ``share`` of the peak learning rates, then forget them."""
        for group in self._adam.param_groups:
            group["lr"] = group["peak"] * share
        self._adam.step()
        self._muon.step(self._muon_rate * share)
        self._model.zero_grad(set_to_none=True)
