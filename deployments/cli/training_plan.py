"""``--dry-run``: what a training would do, and the memory that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.training.zero import ZeroSettings

if TYPE_CHECKING:
    from engine.training.footprint import Footprint
    from engine.training.job import Job, Stage
    from engine.training.trainer import TrainSettings

GIB = 2**30
EXAMPLE_PROCESSES = 8
"""Of the table's ZeRO lines where one process is asked for."""
COLUMNS = ("weights", "gradients", "optimiser", "activations", "total")


def print_plan(job: Job, settings: TrainSettings, workers: int) -> None:
    """Print it; nothing is written to disk."""
    for line in (*_summary(job, settings, workers), "", *_memory(job, settings, workers)):
        print(line)


def _summary(job: Job, settings: TrainSettings, workers: int) -> Iterator[str]:
    parameters = list(job.model.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    tokens = job.tokens_per_step * settings.accumulate * workers
    yield f"job         {job.name}: {job.model.spec.architecture}, {total:,} parameters, {trained:,} of them trained"
    yield f"output      {settings.output}"
    yield (
        f"step        {tokens:,} tokens, padding included: {workers} process{'es' * (workers > 1)} x "
        f"{settings.accumulate} micro-batch{'es' * (settings.accumulate > 1)} x {job.tokens_per_step:,}"
    )
    yield f"rows        {', '.join(map(str, job.row_lengths))} tokens{', packed' * job.packed}"
    steps, minutes = job.budget.steps, job.budget.minutes
    length = [f"{steps:,} steps, {steps * tokens:,} tokens"] if steps is not None else []
    length += [f"{minutes:g} minutes"] if minutes is not None else []
    yield f"length      {' or '.join(length)}{', whichever is reached first' * (len(length) > 1)}"
    optimisation = job.optimisation
    muon = f", matrices {optimisation.matrix_rate:g}" if optimisation.kind == "muon" else ""
    yield f"optimiser   {optimisation.kind}, peak rate {optimisation.rate:g}{muon}"
    begin = 0.0
    for stage in job.curriculum.stages:
        yield f"stage       {begin:.0%} to {stage.until:.0%}: {_mixture(stage)}"
        begin = stage.until


def _mixture(stage: Stage) -> str:
    whole = sum(share.weight for share in stage.mixture)
    parts = [f"{share.weight / whole:.0%} {share.objective!r}" for share in stage.mixture]
    return f"{', '.join(parts)}; rates x {stage.rate:g}"


def _memory(job: Job, settings: TrainSettings, workers: int) -> Iterator[str]:
    from engine.training.footprint import activation_bytes, footprint

    held = settings.zero is not None and settings.zero.bfloat16
    on_cuda = settings.device.startswith("cuda")
    autocast = bool(settings.bfloat16 or on_cuda) and not held
    activations = activation_bytes(job, held_bfloat16=held, autocast=autocast, fused_attention=on_cuda)
    processes = workers if workers > 1 else EXAMPLE_PROCESSES
    yield f"{'GiB per process':<34}" + "".join(f"{name:>13}" for name in COLUMNS)
    yield _line("one process", footprint(job, None, 1, activations), chosen=settings.zero is None)
    for stage in range(4):
        zero = ZeroSettings(stage, held)
        label = f"DeepSpeed, ZeRO {stage}, {processes} processes"
        yield _line(label, footprint(job, zero, processes, activations), chosen=settings.zero == zero)
    kind = "bfloat16" if held else "float32"
    yield f"Weights in {kind}; micro-batch of {job.tokens_per_step:,} tokens. Not counted: torch itself and workspaces."


def _line(label: str, need: Footprint, *, chosen: bool) -> str:
    sizes = (need.weights, need.gradients, need.optimiser, need.activations, need.total)
    return f"{label:<34}" + "".join(f"{size / GIB:13.3f}" for size in sizes) + "  <- as asked" * chosen
