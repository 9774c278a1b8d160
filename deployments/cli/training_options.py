"""Options that every training command has, and how a job is run with them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.training_display import TrainingDisplay, left_out
from deployments.cli.training_plan import print_plan
from deployments.cli.training_workers import start_workers
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.training.job import Job
    from engine.training.trainer import TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What the commands share; every field is an option of each of them."""

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
    tensorboard: Annotated[
        str, typer.Option(help="Folder of TensorBoard's events; none: off.", show_default="OUTPUT.tensorboard")
    ] = ""
    deepspeed: Annotated[bool, typer.Option("--deepspeed", help="Use DeepSpeed; several processes always do.")] = False
    zero: Annotated[
        int | None,
        typer.Option(help="What is divided: 0 nothing, 1 optimiser, 2 gradients too, 3 weights too.", min=0, max=3),
    ] = None
    bf16: Annotated[bool, typer.Option("--bf16", help="With DeepSpeed: hold the network in bfloat16.")] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and what memory it needs, and do not train.")
    ] = False
    workers: Annotated[
        int, typer.Option(help="Processes, which share a step's samples.", show_default="1, or the launcher's", min=1)
    ] = 1
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Start the processes with Ray Train, on the cluster of RAY_ADDRESS or one of this machine; all nodes "
            "must see the folder of --output and the data under the same paths.",
        ),
    ] = False

    def check(self) -> None:
        """ConfigError for values that exclude each other or that typer cannot check."""
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"--minutes must be above 0, got {self.minutes}", "minutes")
        if self.resume and self.overwrite:
            raise ConfigError("--resume and --overwrite exclude each other", "resume")
        if (self.zero is not None or self.bf16) and not self.uses_deepspeed:
            name = "bf16" if self.zero is None else "zero"
            raise ConfigError(f"--{name} is DeepSpeed's: give --deepspeed or several --workers", name)
        if "RANK" in os.environ:
            self._check_launched()

    def _check_launched(self) -> None:
        from engine.training.world import World

        size = World.of_environment().size
        if self.workers not in (1, size):
            raise ConfigError(f"--workers is {self.workers}, but a launcher has started {size} processes", "workers")
        if self.ray:
            raise ConfigError("--ray starts processes itself, but a launcher has started this one", "ray")

    @property
    def processes(self) -> int:
        """How many train, started by us or by a launcher."""
        from engine.training.world import World

        return max(self.workers, World.of_environment().size)

    @property
    def uses_deepspeed(self) -> bool:
        """Whether it was asked for, or several processes train."""
        return self.deepspeed or self.processes > 1

    @property
    def starts_workers(self) -> bool:
        """Whether others train, and this process only starts them."""
        return (self.ray or self.workers > 1) and "RANK" not in os.environ

    def settings(self) -> TrainSettings:
        """As the Trainer takes them."""
        from engine.training.trainer import TrainSettings
        from engine.training.zero import ZeroSettings

        stage = ZeroSettings().stage if self.zero is None else self.zero
        return TrainSettings(
            output=self.output,
            seed=self.seed,
            compile=self.compile,
            accumulate=self.accumulate,
            device=self.device,
            resume=self.resume,
            overwrite=self.overwrite,
            zero=ZeroSettings(stage, self.bf16) if self.uses_deepspeed else None,
            tensorboard=self._tensorboard(),
            report_every_s=self.report_every,
            validate_every_s=60 * self.save_every,
        )

    def _tensorboard(self) -> Path | None:
        if self.tensorboard:
            return None if self.tensorboard == "none" else Path(self.tensorboard)
        is_installed = importlib.util.find_spec("tensorboard") is not None
        return self.output.with_name(self.output.name + ".tensorboard") if is_installed else None


def run_training(options: TrainingOptions, make_job: Callable[[], Job]) -> None:
    """Make the job, train it and print the folder of its checkpoint.

    With ``--dry-run`` the plan is printed instead. With ``--workers`` this process starts those that train, each of
    which comes here again. A run that a signal stopped says how to go on, and ends with the status that shells give
    such a process.
    """
    options.check()
    if options.dry_run:
        print_plan(make_job(), options.settings(), options.processes)
    elif options.starts_workers:
        start_workers(options)
    else:
        _train(options, make_job)


def _train(options: TrainingOptions, make_job: Callable[[], Job]) -> None:
    import torch

    from engine.training.trainer import train
    from engine.training.world import World

    torch.set_num_threads(options.threads)
    job = make_job()
    is_first = World.of_environment().is_first
    with TrainingDisplay(sys.stderr, first=is_first) as display:
        result = train(job, options.settings(), display.show)
    if not is_first:
        return
    for line in left_out(result.last, job.samples.bad_rows, options.output):
        print(line, file=sys.stderr)
    if result.signal:
        print(
            f"lacuna: stopped after step {result.step}; the same command with --resume goes on from there",
            file=sys.stderr,
        )
        raise typer.Exit(128 + result.signal)
    print(result.output)
