"""Options that every training command has, and how a job is run with them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

import typer

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.training.job import Job
    from engine.training.metrics import TrainProgress
    from engine.training.trainer import TrainSettings

PARAMETER = "options"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What the commands share; every field is an option of each of them (see :func:`training_command`)."""

    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the checkpoint.")]
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.", show_default="the recipe's", min=1)] = None
    minutes: Annotated[
        float | None,
        typer.Option(help="Wall-clock budget; the schedule is stretched over it.", show_default="the recipe's steps"),
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of data, noise and initial weights.")] = 0
    compile: Annotated[bool, typer.Option(help="Fuse the network with torch.compile.")] = True
    threads: Annotated[int, typer.Option(help="Threads of one torch operation.", min=1)] = 1
    accumulate: Annotated[int, typer.Option(help="Micro-batches that make one step.", min=1)] = 1
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu"
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted training.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train anew though the output exists.")] = False
    save_every: Annotated[float, typer.Option(help="Minutes between validations and savings.", min=0)] = 10.0
    report_every: Annotated[float, typer.Option(help="Seconds between reports.", min=0)] = 30.0

    def check(self) -> None:
        """ConfigError for values that exclude each other or that typer cannot check."""
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"--minutes must be above 0, got {self.minutes}", "minutes")
        if self.resume and self.overwrite:
            raise ConfigError("--resume and --overwrite exclude each other", "resume")

    def settings(self) -> TrainSettings:
        """As the Trainer takes them."""
        from engine.training.trainer import TrainSettings

        return TrainSettings(
            output=self.output,
            seed=self.seed,
            compile=self.compile,
            accumulate=self.accumulate,
            device=self.device,
            resume=self.resume,
            overwrite=self.overwrite,
            report_every_s=self.report_every,
            validate_every_s=60 * self.save_every,
        )


def training_command(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``options: TrainingOptions`` one command-line option for each of its fields."""
    own = get_type_hints(command, include_extras=True)
    shared = get_type_hints(TrainingOptions, include_extras=True)

    @wraps(command)
    def call(**values: object) -> None:
        options = {field.name: values.pop(field.name) for field in fields(TrainingOptions)}
        command(**values, **{PARAMETER: TrainingOptions(**options)})  # type: ignore[arg-type]

    named = [p for p in inspect.signature(command).parameters.values() if p.name != PARAMETER]
    parameters = {p.name: p.replace(kind=p.KEYWORD_ONLY, annotation=own[p.name]) for p in named}
    signature = inspect.signature(TrainingOptions)
    for name, parameter in signature.parameters.items():
        parameters[name] = parameter.replace(annotation=shared[name])
    call.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    call.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()} | {"return": None}
    return call


def run_training(options: TrainingOptions, make_job: Callable[[], Job]) -> None:
    """Make the job, train it and print the folder of its checkpoint.

    A run that a signal stopped says how to go on, and ends with the status that shells give such a process.
    """
    import torch

    from engine.training.trainer import train

    options.check()
    torch.set_num_threads(options.threads)
    result = train(make_job(), options.settings(), _report)
    if result.signal:
        print(
            f"lacuna: stopped after step {result.step}; the same command with --resume goes on from there",
            file=sys.stderr,
        )
        raise typer.Exit(128 + result.signal)
    print(result.output)


def _report(progress: TrainProgress) -> None:
    scores = progress.scores or {}
    kinds = "".join(f"  {kind} {value:.0%}" for kind, value in scores.items())
    print(
        f"{progress.fraction:6.1%}  step {progress.step}  loss {progress.loss:.3f}  {progress.samples} samples  "
        f"{progress.tokens_per_s:.0f} tokens/s{kinds}",
        file=sys.stderr,
        flush=True,
    )
