"""``lacuna train``: the recipe of the embedded models."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.option_groups import with_option_groups
from deployments.cli.training_options import TrainingOptions, run_training
from deployments.config import resolve_checkpoint
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.training.base import BaseConfig
    from engine.training.job import Job


@with_option_groups
def train(
    preset: Annotated[str, typer.Argument(help="The recipe: tiny-ar, tiny-sdar, tiny-llada or tiny-llada-moe.")],
    *,
    initial: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint to go on from: a folder, or the id of an embedded model.",
            show_default="the recipe's, or random",
        ),
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
    folder = None if initial is None else resolve_checkpoint(initial)
    if folder is not None and not folder.is_dir():
        message = f"--initial: {initial} is neither a folder nor the id of an embedded model (lacuna models list)"
        raise ConfigError(message, "initial")
    config = BaseConfig(
        preset=preset, seed=options.seed, steps=options.steps, time_budget_minutes=options.minutes, initial=folder
    )
    run_training(options, lambda: _job(config, optimizer))


def _job(config: BaseConfig, optimizer: str) -> Job:
    from engine.training.base import base_job

    job = base_job(config)
    return job if optimizer == "muon" else replace(job, optimisation=replace(job.optimisation, kind="adamw"))
