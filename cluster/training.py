"""A training on the nodes of a Ray cluster: Ray Train starts the processes and joins them to one group."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, EngineDeadError, LacunaError


def run_on_ray(function: Callable[[], None], *, num_workers: int, cpus: int, uses_gpu: bool, storage: Path) -> None:
    """Call a function (of an importable module) on every worker, with the environment that torchrun would set and the
    process group made. Raises the error of a worker.

    A running cluster is joined (RAY_ADDRESS), else one is started here. All nodes see the same files; ``storage`` is
    Ray Train's own folder and removed afterwards.
    """
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError:
        raise ConfigError("--ray needs Ray Train: pip install 'ray[train]'", "ray") from None

    trainer = TorchTrainer(
        _call,
        train_loop_config={"function": function},
        torch_config=TorchConfig(backend="nccl" if uses_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=uses_gpu, resources_per_worker={"CPU": cpus, "GPU": int(uses_gpu)}
        ),
        run_config=RunConfig(name="training", storage_path=str(storage)),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise _cause(error) from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _call(config: dict[str, Any]) -> None:
    config["function"]()


def _cause(error: Exception) -> LacunaError:
    """The worker's own error where it was one of ours."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        found: BaseException | None = failure
        while found is not None:
            if isinstance(found, LacunaError):
                return found
            found = getattr(found, "cause", None) or found.__cause__
    return EngineDeadError(f"the training on Ray failed: {next(iter(failures.values()), error)}")
