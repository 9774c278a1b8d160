"""DeepSpeed: gradients are averaged over processes; ZeRO divides optimiser state (1), gradients (2), weights (3).

The optimiser is torch's AdamW, which DeepSpeed divides: nothing is compiled at run time. Its state is saved in
DeepSpeed's own format, one file per process, which torch reads by unpickling: resume only what you wrote yourself.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from engine.errors import ConfigError
from engine.models.spec import DiffusionLM
from engine.training.backend import Backend, LossFunction
from engine.training.batches import Batch
from engine.training.job import Optimisation
from engine.training.optim import EMBEDDING, HEAD, adamw, set_rates
from engine.training.zero import ZeroSettings

TAG = "state"
SHARED_MEMORY_OP = "deepspeed_shm_comm"
"""DeepSpeed's own all-reduce between processes of one CPU: it is compiled at the first use, and ignores groups."""
T = TypeVar("T")


class DeepSpeedBackend(Backend):
    """One of the processes of a DeepSpeed training; the process group exists already."""

    def __init__(
        self,
        model: DiffusionLM,
        optimisation: Optimisation,
        loss: LossFunction,
        num_micro: int,
        settings: ZeroSettings,
    ) -> None:
        if optimisation.kind != "adamw":
            needed = "DeepSpeed, which several processes need, divides AdamW"
            raise ConfigError(f"{needed}, not {optimisation.kind!r}: give --optimizer adamw", "optimizer")
        self._deepspeed = _load_deepspeed()
        self._model = model
        self._loss = loss
        self._stage = settings.stage
        self._num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self._state_bytes = self._num_parameters * (14 if settings.bfloat16 else 12 if settings.stage == 0 else 16)
        scope = _Scope(model)
        self._deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
        self._engine, *_ = self._deepspeed.initialize(
            model=scope,
            optimizer=adamw(model, optimisation, model.parameters()),
            config=_config(optimisation, num_micro, settings),
        )
        if settings.stage == 3:
            for name, parameter in model.named_parameters():
                if name in (EMBEDDING, HEAD):  # used outside the modules that own them, as the head
                    self._deepspeed.zero.register_external_parameter(scope, parameter)

    def accumulate(self, batch: Batch) -> float:
        loss = self._engine(lambda: self._loss(batch))
        self._engine.backward(loss)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()
        value: float = loss.item()
        return value

    def step(self, share: float) -> float:
        set_rates(self._engine.optimizer, share)
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    @torch.no_grad()
    def run(self, function: Callable[[], T]) -> T:
        result: T = self._engine.module(function)
        return result

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        with self._deepspeed.zero.GatheredParameters(list(self._model.parameters()), enabled=self._stage == 3):
            yield

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)

    def restore(self, folder: Path) -> None:
        path, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
        if path is None:
            raise ConfigError(f"{folder} holds no complete state of DeepSpeed", "resume")

    @property
    def state_bytes(self) -> int:
        return self._state_bytes


class _Scope(nn.Module):
    """Calls functions that use the model: within a call its weights are there, wherever ZeRO keeps them otherwise."""

    def __init__(self, model: DiffusionLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], T]) -> T:
        return function()


def _config(optimisation: Optimisation, num_micro: int, settings: ZeroSettings) -> dict[str, object]:
    """DeepSpeed's own settings. Batches are counted as one sample: only the number of micro-batches matters."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": num_micro,
        "gradient_clipping": optimisation.gradient_clip or 0.0,
        "zero_optimization": {"stage": settings.stage},
        "bf16": {"enabled": settings.bfloat16},
        "steps_per_print": None,
    }


def _load_deepspeed() -> Any:
    """The package, quiet. ConfigError names the extra that brings it."""
    try:
        deepspeed = importlib.import_module("deepspeed")
    except ImportError:
        message = "Training with --deepspeed or on several processes needs DeepSpeed: pip install 'lacuna-serve[train]'"
        raise ConfigError(message, "deepspeed") from None
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__[SHARED_MEMORY_OP] = False
    return deepspeed
