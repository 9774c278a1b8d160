"""``lacuna train``: the recipe of the embedded models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.training.trainer import TrainProgress


def train(
    preset: Annotated[str, typer.Argument(help="tiny-ar, tiny-sdar or tiny-llada: the recipe of an embedded model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the checkpoint.")],
    minutes: Annotated[
        float | None,
        typer.Option(help="Wall-clock budget; the schedule is stretched over it.", show_default="the recipe's steps"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.", show_default="the recipe's", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of data, noise and initial weights.")] = 0,
    initial: Annotated[
        Path | None, typer.Option(help="Checkpoint to go on from.", show_default="random; tiny-llada: lacuna-tiny-sdar")
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Fuse the network with torch.compile.")
    ] = True,
    threads: Annotated[int, typer.Option(help="Threads of one torch operation.", min=1)] = 1,
) -> None:
    """Train a small model on the built-in tasks and save it in its family's published layout.

    tiny-sdar starts from random weights, tiny-llada from an SDAR checkpoint whose QK norm is folded away.
    """
    import torch

    from engine.training.base import BaseConfig, base_job
    from engine.training.presets import RECIPES
    from engine.training.trainer import TrainSettings
    from engine.training.trainer import train as run

    if preset not in RECIPES:
        raise ConfigError(f"unknown preset {preset!r}; choose one of: {', '.join(RECIPES)}", "preset")
    if minutes is not None and minutes <= 0:
        raise ConfigError(f"--minutes must be above 0, got {minutes}", "minutes")
    if initial is not None and not initial.is_dir():
        raise ConfigError(f"--initial: {initial} is not a folder", "initial")
    torch.set_num_threads(threads)
    config = BaseConfig(preset=preset, seed=seed, steps=steps, time_budget_minutes=minutes, initial=initial)
    print(run(base_job(config), TrainSettings(output=output, seed=seed, compile=compile_), _report))


def _report(progress: TrainProgress) -> None:
    scores = progress.scores or {}
    kinds = "".join(f"  {kind} {value:.0%}" for kind, value in scores.items())
    print(
        f"{progress.fraction:6.1%}  step {progress.step}  loss {progress.loss:.3f}  {progress.samples} samples  "
        f"{progress.tokens_per_s:.0f} tokens/s{kinds}",
        file=sys.stderr,
        flush=True,
    )
