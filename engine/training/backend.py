"""How gradients become a step: in this process alone, or (``deepspeed_backend.py``) in several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.models.spec import DiffusionLM
from engine.training.batches import Batch
from engine.training.job import Optimisation
from engine.training.optim import Optimiser

LossFunction = Callable[[Batch], Tensor]
T = TypeVar("T")


class Backend(ABC):
    """Owns gradients and optimiser. A step is the mean gradient of its micro-batches, over all processes. All methods
    are collective: every process calls them in the same order."""

    @abstractmethod
    def accumulate(self, batch: Batch) -> float:
        """Add a micro-batch's gradients; returns its loss on this process."""

    @abstractmethod
    def step(self, share: float) -> float:
        """Apply the gradients at ``share`` of the peak learning rates; returns their norm."""

    @abstractmethod
    def run(self, function: Callable[[], T]) -> T:
        """Call a function that computes with the model, without gradients."""

    @abstractmethod
    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Within the block the first process's model has all its weights."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write weights in full precision and the optimiser's state."""

    @abstractmethod
    def restore(self, folder: Path) -> None:
        """Take over what :meth:`save` wrote."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """What :meth:`save` writes, over all processes, once the optimiser has made a step."""


class PlainBackend(Backend):
    """One process, one device; ``num_micro`` micro-batches make a step."""

    def __init__(self, model: DiffusionLM, optimisation: Optimisation, loss: LossFunction, num_micro: int) -> None:
        self._model = model
        self._loss = loss
        self._num_micro = num_micro
        self._optimiser = Optimiser(model, optimisation)

    def accumulate(self, batch: Batch) -> float:
        loss = self._loss(batch)
        (loss / self._num_micro).backward()
        return loss.item()

    def step(self, share: float) -> float:
        return self._optimiser.step(share)

    @torch.no_grad()
    def run(self, function: Callable[[], T]) -> T:
        return function()

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        yield

    def save(self, folder: Path) -> None:
        save_file(_stored(dict(self._model.named_parameters())), folder / "weights.safetensors")
        save_file(_stored(self._optimiser.tensors()), folder / "optimiser.safetensors")

    @torch.no_grad()
    def restore(self, folder: Path) -> None:
        weights = load_file(folder / "weights.safetensors")
        for name, parameter in self._model.named_parameters():
            parameter.copy_(weights[name])
        self._optimiser.restore(load_file(folder / "optimiser.safetensors"))

    @property
    def state_bytes(self) -> int:
        return 3 * sum(parameter.nbytes for parameter in self._model.parameters())


def _stored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
