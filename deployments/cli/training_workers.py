"""Several processes for one training: the same command again, once per process."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from engine.errors import EngineDeadError

if TYPE_CHECKING:
    from deployments.cli.training_options import TrainingOptions

INTERRUPTED = 130
RAY = "--ray"


def start_workers(options: TrainingOptions) -> None:
    """Run this command on ``--workers`` processes, of this machine or of Ray's, and print what the first prints.
    Ends with the status of the first that failed, and says how to go on where a worker died."""
    if options.ray:
        _on_ray(options)
    else:
        _here(options)


def _here(options: TrainingOptions) -> None:
    from cluster.processes import run_processes
    from deployments.cli import FAILURE

    failure = run_processes([sys.executable, "-m", "deployments.cli", *sys.argv[1:]], options.workers)
    if failure is None:
        return
    if failure.signal or failure.status == FAILURE:  # a mistake of the user was told by the worker
        print(f"lacuna: {failure}; {how_to_go_on(options.output)}", file=sys.stderr)
    raise typer.Exit(failure.status)


def _on_ray(options: TrainingOptions) -> None:
    from cluster.training import run_on_ray

    try:
        run_on_ray(
            partial(work, [argument for argument in sys.argv[1:] if argument != RAY], Path.cwd()),
            num_workers=options.workers,
            cpus=options.threads,
            uses_gpu=options.device.startswith("cuda"),
            storage=options.output.absolute().with_name(options.output.name + ".ray"),
        )
    except EngineDeadError as error:
        raise EngineDeadError(f"{error}\n{how_to_go_on(options.output)}") from error
    except KeyboardInterrupt:
        print(f"lacuna: stopped; {how_to_go_on(options.output)}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    print(options.output)


def work(arguments: list[str], folder: Path) -> None:
    """The command in a process that Ray Train has prepared. What it prints goes to stderr, as the rest of Ray's logs:
    the result is printed by the process that the user started."""
    from deployments.cli import app

    os.chdir(folder)
    with redirect_stdout(sys.stderr):
        app(arguments, standalone_mode=False)


def how_to_go_on(output: Path) -> str:
    """After a training that did not end as it should."""
    from engine.training.metrics import RunFiles

    try:
        step = json.loads((RunFiles(output).state / "state.json").read_text())["step"]
    except FileNotFoundError:
        return "nothing was saved yet (see --save-every), so begin anew"
    return f"the same command with --resume goes on from step {step}, which was saved last"
