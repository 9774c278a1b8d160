"""``lacuna adapt``: from an autoregressive checkpoint to a block-diffusion one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.training_options import TrainingOptions, run_training, training_command
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.training.adapt import AdaptConfig
    from engine.training.job import Job


@training_command
def adapt(
    source: Annotated[
        Path, typer.Option("--from", help="Folder of a Qwen3, Qwen3-MoE or SDAR checkpoint.", show_default=False)
    ],
    options: TrainingOptions,
    block_length: Annotated[int, typer.Option(help="Positions that are denoised together.", min=1)] = 4,
    objective: Annotated[
        str, typer.Option(help="sdar: the published one; blocks: an exact number of masks in each block.")
    ] = "blocks",
    curriculum: Annotated[
        str, typer.Option(help="Block lengths on the way, e.g. 4,8,16.", show_default="doubling from 4")
    ] = "",
    ar_share: Annotated[float, typer.Option(help="Share of autoregressive rows (blocks of 1).", min=0, max=0.99)] = 0.0,
    matrix_rate: Annotated[float, typer.Option(help="Peak rate of the layers' matrices (Muon).")] = 0.02,
    rate: Annotated[float, typer.Option(help="Peak rate of everything else (AdamW).")] = 0.004,
    convert_only: Annotated[bool, typer.Option("--convert-only", help="Convert without training.")] = False,
) -> None:
    """Turn an autoregressive checkpoint into a block-diffusion one (SDAR) that Lacuna serves."""
    from engine.training.adapt import AdaptConfig

    config = AdaptConfig(
        source=source,
        block_length=block_length,
        objective=objective,  # type: ignore[arg-type] # checked there
        curriculum=_lengths(curriculum),
        ar_share=ar_share,
        seed=options.seed,
        steps=options.steps,
        minutes=options.minutes,
        matrix_rate=matrix_rate,
        rate=rate,
    )
    if convert_only:
        _convert(config, options.output)
    else:
        run_training(options, lambda: _job(config))


def _job(config: AdaptConfig) -> Job:
    from engine.training.adapt import adapt_job

    job, notes = adapt_job(config)
    for note in notes:
        print(note, file=sys.stderr)
    return job


def _convert(config: AdaptConfig, output: Path) -> None:
    from engine.training.checkpoint import save_checkpoint

    job = _job(config)
    save_checkpoint(output, job.model, job.files, job.record)
    print(output)


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"--curriculum: {text!r} is not a list of block lengths like 4,8,16", "curriculum") from None
