"""A training on the nodes of a Ray cluster: Ray Train starts the processes and joins them to one group."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, EngineDeadError, LacunaError

PRINT_PATCH = "RAY_TRAIN_ENABLE_PRINT_PATCH"
"""Ray Train passes it on to the workers, where it would show every line twice: as printed, and as logged."""


def run_on_ray(function: Callable[[], None], *, num_workers: int, cpus: int, uses_gpu: bool, storage: Path) -> None:
    """Call a function (of an importable module) on every worker, with the environment that torchrun would set and the
    process group made. Raises the error of a worker, KeyboardInterrupt where a signal ended the training.

    A running cluster is joined (RAY_ADDRESS), else one is started here. All nodes see the same files; ``storage`` is
    Ray Train's own folder and removed afterwards.
    """
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError:
        message = "--ray needs Ray Train, which is not installed completely: pip install 'lacuna-serve[train]'"
        raise ConfigError(message, "ray") from None

    os.environ.setdefault(PRINT_PATCH, "0")
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
        with _cluster(num_workers * cpus), _signal_handlers_kept():
            trainer.fit()
    except SystemExit:  # how Ray answers SIGINT and SIGTERM
        raise KeyboardInterrupt from None
    except Exception as error:
        raise cause(error) from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _call(config: dict[str, Any]) -> None:
    config["function"]()


@contextmanager
def _cluster(cpus: int) -> Iterator[None]:
    """A connection to the cluster of RAY_ADDRESS, or a cluster of this machine that has room for all."""
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address, logging_level=logging.WARNING)
    else:
        ray.init(
            "local",
            num_cpus=max(cpus, os.cpu_count() or 1),
            include_dashboard=False,
            logging_level=logging.WARNING,
            _system_config={"worker_niceness": 0},  # as the processes that --workers starts without Ray
        )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray Train leaves its own handler of SIGINT behind."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def cause(error: Exception) -> LacunaError:
    """What a failed training says: a worker's own error where it was one of ours, else which worker failed; of several
    one that died, since its death is why the others failed."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        raised = getattr(failure, "_base_exc", failure)  # Ray wraps what the function raises
        if isinstance(raised, LacunaError):
            return raised
    died = {rank: failure for rank, failure in failures.items() if not hasattr(failure, "_base_exc")}
    for rank, failure in (died or failures).items():
        return EngineDeadError(f"worker {rank} {'died' if died else 'failed'}: {failure}")
    return EngineDeadError(f"the training on Ray failed: {error}")
