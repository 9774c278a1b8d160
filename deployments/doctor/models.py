"""The models: are their checkpoints whole, and do they fit the memory of this machine?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from deployments.config import ModelConfig
from deployments.doctor.finding import Finding, Subject, failure, ok, warning
from deployments.doctor.machine import GPU_MEMORY_SHARE, Machine, read_machine
from engine.config import DTYPES, EngineConfig
from engine.errors import CheckpointError, ConfigError
from engine.memory import MemoryPlan, plan_memory
from engine.models.checkpoint import open_checkpoint
from engine.models.inspect import format_bytes, inspect_checkpoint

PROCESS_BYTES = 450 * 2**20
"""What a rank's process takes beside its model: Python, torch and Ray (measured on a CPU: 0.4 GiB resident)."""

RAY_BYTES = 2**30
"""Ray's own processes, Serve's, the router and the ingress on one machine."""

SMALLER = "lower engine.max_num_seqs, engine.max_model_len or engine.kv_cache_positions, see `lacuna models size`"


def check_settings(subject: Subject) -> Iterator[Finding]:
    if subject.config is None:
        yield failure("settings", subject.problem, "correct the file or the option; models were not looked at")
    else:
        yield ok("settings", f"models: {', '.join(model.id for model in subject.config.models)}")


def check_checkpoints(subject: Subject) -> Iterator[Finding]:
    """Headers only: nothing is loaded. On a cluster the folders lie on its nodes, and perhaps here."""
    for model in _models(subject):
        name = f"model {model.id}"
        if not subject.is_local and not model.checkpoint().is_dir():
            yield ok(name, f"{model.checkpoint()} is not on this machine; the nodes are asked")
            continue
        try:
            yield from _checkpoint(name, model)
        except (CheckpointError, ConfigError) as error:
            yield failure(name, str(error), "correct the model's path or engine settings")


def check_memory(subject: Subject, machine: Machine | None = None) -> Iterator[Finding]:
    """Weights, K/V and the largest forward of every replica that starts, against what is free."""
    if not subject.is_local or subject.config is None:
        return
    machine = machine or read_machine()
    needs = list(_needs(subject))
    for need in needs:
        if need.on_gpu and machine.gpus:
            yield _on_gpu(need, machine)
    on_cpu = [need for need in needs if not need.on_gpu]
    if on_cpu and machine.available_bytes:
        yield _on_cpu(on_cpu, machine)


@dataclass(frozen=True, slots=True)
class _Need:
    """The replicas of a model and what each of them takes."""

    model: ModelConfig
    plan: MemoryPlan

    @property
    def on_gpu(self) -> bool:
        """Ray hides the GPUs from a replica that asks for none."""
        return self.model.num_gpus > 0 and self.model.engine_config().device != "cpu"

    @property
    def processes(self) -> int:
        """Ranks of all replicas."""
        return self.model.first_replicas * self.model.engine_config().layout.world_size

    @property
    def described(self) -> str:
        plan = self.plan
        return (
            f"{self.model.id} {format_bytes(plan.total_bytes)} (weights {format_bytes(plan.weight_bytes)}, K/V "
            f"{format_bytes(plan.kv_bytes)}, forward up to {format_bytes(plan.forward_bytes)})"
        )


def _models(subject: Subject) -> list[ModelConfig]:
    return subject.config.models if subject.config is not None else []


def _checkpoint(name: str, model: ModelConfig) -> Iterator[Finding]:
    report = inspect_checkpoint(model.checkpoint(), model.engine_config())
    if report.problem is not None:
        yield failure(name, report.problem, f"see `lacuna models inspect {model.checkpoint()}`")
        return
    dtypes = ", ".join(report.parameters_by_dtype)
    yield ok(
        name, f"{report.family}, {report.parameters:,} parameters, {format_bytes(report.stored_bytes)} in {dtypes}"
    )
    plan_model(model)
    if not report.has_tokenizer:
        yield warning(name, "no tokenizer: requests have to bring token ids", "put tokenizer.json beside the weights")


def plan_model(model: ModelConfig) -> MemoryPlan:
    """The memory of one replica; CheckpointError or ConfigError where it could not start."""
    config = model.engine_config()
    checkpoint = open_checkpoint(model.checkpoint(), config)
    device = torch.device("cuda" if model.num_gpus > 0 and config.device != "cpu" else "cpu")
    return plan_memory(checkpoint.spec, config, _dtype(config, device, checkpoint.weights.dtype), device)


def _dtype(config: EngineConfig, device: torch.device, stored: torch.dtype) -> torch.dtype:
    """As the engine chooses, on a device that need not be here."""
    if config.dtype != "auto":
        return DTYPES[config.dtype]
    return stored if device.type == "cuda" and stored in DTYPES.values() else torch.float32


def _needs(subject: Subject) -> Iterator[_Need]:
    for model in _models(subject):
        try:
            yield _Need(model, plan_model(model))
        except (CheckpointError, ConfigError):
            continue  # check_checkpoints has said so


def _on_cpu(needs: list[_Need], machine: Machine) -> Finding:
    total = RAY_BYTES + sum(need.processes * (need.plan.total_bytes + PROCESS_BYTES) for need in needs)
    drawing = sum(need.processes * need.plan.drawing_bytes for need in needs)
    each = "; ".join(f"{need.processes} x {need.described}" for need in needs)
    message = f"{format_bytes(total)} wanted with Ray, {format_bytes(machine.available_bytes)} free: {each}"
    if total > machine.available_bytes:
        return failure("memory", message, f"fewer replicas, or {SMALLER}")
    if total + drawing > machine.available_bytes:
        return warning("memory", f"{message}. {_sampling(drawing)}", f"fewer replicas, or {SMALLER}")
    return ok("memory", message)


def _sampling(drawing: int) -> str:
    return f"Forwards of sampled requests take up to {format_bytes(drawing)} more"


def _on_gpu(need: _Need, machine: Machine) -> Finding:
    """A replica with less than one GPU shares it with others of its size."""
    check = f"GPU memory of {need.model.id}"
    share = min(need.model.num_gpus, 1.0)
    smallest = min(gpu.total_bytes for gpu in machine.gpus)
    free = min(gpu.free_bytes for gpu in machine.gpus)
    message = f"{need.described}; a GPU has {format_bytes(smallest)}, {format_bytes(free)} free"
    usable = GPU_MEMORY_SHARE * share * smallest
    if need.plan.total_bytes > usable:
        return failure(check, message, SMALLER)
    if need.plan.total_bytes + need.plan.drawing_bytes > usable:
        return warning(check, f"{message}. {_sampling(need.plan.drawing_bytes)}", SMALLER)
    if need.plan.total_bytes > free:
        return warning(check, message, "end what else uses the GPU (nvidia-smi)")
    return ok(check, message)
