"""AdamW, or Muon for the matrices of the layers and AdamW for embeddings, head, routers and norms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.models.spec import DiffusionLM
from engine.training.job import Optimisation

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
EMBEDDING = "embed_tokens.weight"
HEAD = "lm_head.weight"
ROUTER = "mlp.gate.weight"


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
    """Rows ``[start, end)`` of a parameter, or of its matrix ``expert`` where matrices are stacked: one projection."""

    parameter: Tensor
    start: int
    end: int
    expert: int | None = None

    @property
    def weight(self) -> Tensor:
        return self._rows(self.parameter)

    @property
    def gradient(self) -> Tensor:
        assert self.parameter.grad is not None
        return self._rows(self.parameter.grad)

    def _rows(self, whole: Tensor) -> Tensor:
        return (whole if self.expert is None else whole[self.expert])[self.start : self.end]


class Muon:
    """Momentum, orthogonalised per projection. Parts of one shape are orthogonalised together."""

    def __init__(self, parts: Iterable[MatrixPart], momentum: float = 0.95) -> None:
        self._momentum = momentum
        self._groups: dict[tuple[int, int], list[MatrixPart]] = {}
        for part in parts:
            self._groups.setdefault((part.end - part.start, part.parameter.shape[-1]), []).append(part)
        self._buffers = {shape: torch.zeros(len(parts), *shape) for shape, parts in self._groups.items()}

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update every part; wide matrices move by ``learning_rate`` in spectral norm, tall ones by sqrt(rows/columns)
        times as much."""
        for (rows, columns), parts in self._groups.items():
            gradients = torch.stack([part.gradient for part in parts])
            buffer = self._buffers[rows, columns]
            buffer.lerp_(gradients, 1 - self._momentum)
            update = orthogonalise(gradients.lerp(buffer, self._momentum))
            scale = learning_rate * max(1.0, rows / columns) ** 0.5
            for part, delta in zip(parts, update, strict=True):
                part.weight.sub_(delta, alpha=scale)


class Optimiser:
    """The optimiser of a model; learning rates are given per step as a share of their peaks."""

    def __init__(self, model: DiffusionLM, settings: Optimisation) -> None:
        self._model = model
        self._settings = settings
        matrices = _matrices(model) if settings.kind == "muon" else []
        self._muon = Muon(matrices) if matrices else None
        in_muon = {id(part.parameter) for part in matrices}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in in_muon]
        embedding = model.get_parameter(EMBEDDING)
        self._adam = torch.optim.AdamW(
            [
                {"params": [embedding], "peak": settings.embedding_boost * settings.rate},
                {"params": [p for p in rest if p is not embedding], "peak": settings.rate},
            ],
            lr=settings.rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )

    def step(self, share: float) -> None:
        """Apply the gradients at ``share`` of the peak learning rates, then forget them."""
        if self._settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.gradient_clip)
        for group in self._adam.param_groups:
            group["lr"] = group["peak"] * share
        self._adam.step()
        if self._muon is not None:
            self._muon.step(self._settings.matrix_rate * share)
        self._model.zero_grad(set_to_none=True)


def _matrices(model: DiffusionLM) -> list[MatrixPart]:
    """Every projection of the layers by itself, also where several are packed or stacked. Routers are left out: their
    rows are scores of experts that do not mix."""
    parameters = dict(model.named_parameters())
    return [
        MatrixPart(parameter, place.start, place.end or parameter.shape[-2], place.expert)
        for place in model.checkpoint_tensors()
        if (parameter := parameters[place.parameter]).ndim >= 2
        and place.parameter not in (EMBEDDING, HEAD)
        and not place.parameter.endswith(ROUTER)
    ]
