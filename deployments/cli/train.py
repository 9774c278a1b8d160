"""``lacuna train``: the recipe of the embedded models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.option_groups import with_option_groups
from deployments.cli.training_options import TrainingOptions, run_training
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.training.base import BaseConfig
    from engine.training.job import Job


@with_option_groups
def train(
    preset: Annotated[str, typer.Argument(help="The recipe: tiny-ar, tiny-sdar, tiny-llada or tiny-llada-moe.")],
    *,
    initial: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to go on from.", show_default="the recipe's, or random"),
    ] = None,
    optimizer: Annotated[
        str, typer.Option(help="muon or adamw (which DeepSpeed needs).", show_default="the recipe's: muon")
    ] = "muon",
    options: TrainingOptions,
) -> None:
    """Train a small model on the built-in tasks and save it in its family's published layout.

    tiny-ar and tiny-sdar start from random weights, tiny-llada from an SDAR checkpoint whose QK norm is folded away,
    tiny-llada-moe from one whose feed-forward networks are divided into experts.
    """
    from engine.training.base import BaseConfig
    from engine.training.presets import RECIPES

    if preset not in RECIPES:
        raise ConfigError(f"unknown preset {preset!r}; choose one of: {', '.join(RECIPES)}", "preset")
    if optimizer not in ("muon", "adamw"):
        raise ConfigError(f"--optimizer must be muon or adamw, got {optimizer!r}", "optimizer")
    if initial is not None and not initial.is_dir():
        raise ConfigError(f"--initial: {initial} is not a folder", "initial")
    config = BaseConfig(
        preset=preset, seed=options.seed, steps=options.steps, time_budget_minutes=options.minutes, initial=initial
    )
    run_training(options, lambda: _job(config, optimizer))


def _job(config: BaseConfig, optimizer: str) -> Job:
    from engine.training.base import base_job

    job = base_job(config)
    return job if optimizer == "muon" else replace(job, optimisation=replace(job.optimisation, kind="adamw"))
