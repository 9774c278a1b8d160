"""AdamW, or Muon for the matrices of the layers and AdamW for embeddings, head, routers and norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
        self._buffers = {
            shape: torch.zeros(len(parts), *shape, device=parts[0].parameter.device)
            for shape, parts in self._groups.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """The state by name: one stack of momenta per shape of projections."""
        return {f"muon.{rows}x{columns}": buffer for (rows, columns), buffer in self._buffers.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the :meth:`tensors` of another one."""
        for name, buffer in self.tensors().items():
            buffer.copy_(tensors[name])

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
        self._adam = adamw(model, settings, [p for p in model.parameters() if id(p) not in in_muon])

    def step(self, share: float) -> float:
        """Apply the gradients at ``share`` of the peak learning rates, then forget them. Returns their norm."""
        trained = [p for p in self._model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if self._settings.gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(trained, self._settings.gradient_clip, norm)
        set_rates(self._adam, share)
        self._adam.step()
        if self._muon is not None:
            self._muon.step(self._settings.matrix_rate * share)
        self._model.zero_grad(set_to_none=True)
        return norm.item()

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name: AdamW's two moments and step count of each of its parameters, Muon's momenta."""
        adam = {
            f"adam.{name}.{field}": value
            for name, parameter in self._model.named_parameters()
            for field, value in self._adam.state.get(parameter, {}).items()
        }
        return adam | ({} if self._muon is None else self._muon.tensors())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the :meth:`tensors` of another optimiser of the same model and settings."""
        for name, parameter in self._model.named_parameters():
            prefix = f"adam.{name}."
            held = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if held:
                self._adam.state[parameter] = {
                    field: value.clone() if field == "step" else value.to(parameter.device, copy=True)
                    for field, value in held.items()
                }
        if self._muon is not None:
            self._muon.restore(tensors)


def adamw(model: DiffusionLM, settings: Optimisation, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW for some parameters of a model; each group knows its ``peak`` rate."""
    embedding = model.get_parameter(EMBEDDING)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p is embedding], "peak": settings.embedding_boost * settings.rate},
        {"params": [p for p in trained if p is not embedding], "peak": settings.rate},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )


def set_rates(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Learning rates as a share of the groups' peaks."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share


def muon_parameters(model: DiffusionLM) -> list[Tensor]:
    """The parameters that Muon updates, each once."""
    return list({id(part.parameter): part.parameter for part in _matrices(model)}.values())


def _matrices(model: DiffusionLM) -> list[MatrixPart]:
    """Every projection of the layers by itself, also where several are packed or stacked. Routers are left out: their
    rows are scores of experts that do not mix."""
    parameters = dict(model.named_parameters())
    return [
        MatrixPart(parameter, place.start, place.end or parameter.shape[-2], place.expert)
        for place in model.checkpoint_tensors()
        if (parameter := parameters[place.parameter]).ndim >= 2
        and parameter.requires_grad
        and place.parameter not in (EMBEDDING, HEAD)
        and not place.parameter.endswith(ROUTER)
    ]
