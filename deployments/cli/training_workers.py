"""Several processes for one training: the same command again, once per process."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from deployments.cli.training_options import TrainingOptions


def start_workers(options: TrainingOptions) -> None:
    """Run this command on ``--workers`` processes, of this machine or of Ray's, and print what the first prints.
    Ends with the status of the first that failed."""
    if options.ray:
        from cluster.training import run_on_ray

        uses_gpu = options.device.startswith("cuda")
        run_on_ray(
            partial(work, sys.argv[1:], Path.cwd()),
            num_workers=options.workers,
            cpus=options.threads,
            uses_gpu=uses_gpu,
            storage=options.output.absolute().with_name(options.output.name + ".ray"),
        )
        print(options.output)
        return
    from cluster.processes import run_processes

    status = run_processes([sys.executable, "-m", "deployments.cli", *sys.argv[1:]], options.workers)
    if status:
        raise typer.Exit(status)


def work(arguments: list[str], folder: Path) -> None:
    """The command in a process that Ray Train has prepared."""
    from deployments.cli import app

    os.chdir(folder)
    app(arguments, standalone_mode=False)
