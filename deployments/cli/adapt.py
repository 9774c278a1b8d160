"""``lacuna adapt``: from an autoregressive checkpoint to a block-diffusion one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from deployments.cli.option_groups import with_option_groups
from deployments.cli.training_options import TrainingOptions, run_training
from deployments.config import resolve_checkpoint
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.training.adapt_config import AdaptConfig
    from engine.training.job import Job

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptOptions:
    """What is learned from what, and how fast."""

    block_length: Annotated[int, typer.Option(help="Positions that are denoised together.", min=1)] = 4
    data: Annotated[
        list[Path] | None,
        typer.Option(help="JSONL file to train on; may be repeated.", show_default="the built-in tasks"),
    ] = None
    validation: Annotated[
        Path | None, typer.Option(help="JSONL file whose answers' likelihood is told on the way.", show_default="none")
    ] = None
    stage: Annotated[
        str, typer.Option(help="cpt: texts, every token; sft: answers to prompts; cpt,sft: one after the other.")
    ] = "sft"
    stage_shares: Annotated[
        str, typer.Option(help="Parts of the training of each stage, e.g. 0.7,0.3.", show_default="equal")
    ] = ""
    objective: Annotated[
        str | None,
        typer.Option(
            help="sdar: the published one; blocks: an exact number of masks in each block of an answer.",
            show_default="sdar with --data, blocks without",
        ),
    ] = None
    curriculum: Annotated[
        str, typer.Option(help="Block lengths on the way, e.g. 4,8,16.", show_default="doubling from 4")
    ] = ""
    ar_share: Annotated[float, typer.Option(help="Share of autoregressive rows (blocks of 1).", min=0, max=0.99)] = 0.0
    sequence_length: Annotated[
        int | None,
        typer.Option(help="Tokens of text in a packed row.", show_default="2048, or what the model takes", min=1),
    ] = None
    rows_per_step: Annotated[int, typer.Option(help="Packed rows in a step of a process.", min=1)] = 1
    optimizer: Annotated[
        str | None, typer.Option(help="adamw or muon.", show_default="adamw with --data, muon without")
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate of AdamW.", show_default="1e-5 with --data, 0.004 without")
    ] = None
    matrix_rate: Annotated[
        float | None, typer.Option(help="Peak rate of Muon (matrices of the layers).", show_default="0.02")
    ] = None
    router_aux: Annotated[
        float | None,
        typer.Option(help="Weight of the loss that balances experts.", show_default="the config's, else 0.001", min=0),
    ] = None
    freeze_router: Annotated[bool, typer.Option("--freeze-router", help="Leave the choice of experts as it is.")] = (
        False
    )

    def config(self, source: Path, training: TrainingOptions) -> AdaptConfig:
        """As the engine takes them. ConfigError for lists that are none."""
        from engine.training.adapt_config import AdaptConfig

        return AdaptConfig(
            source=source,
            block_length=self.block_length,
            objective=self.objective,  # type: ignore[arg-type] # checked there
            phases=_list(self.stage, str, "stage"),  # type: ignore[arg-type] # checked there
            phase_shares=_list(self.stage_shares, float, "stage_shares"),
            curriculum=_list(self.curriculum, int, "curriculum"),
            ar_share=self.ar_share,
            data=tuple(self.data or ()),
            validation=self.validation,
            sequence_length=self.sequence_length,
            rows_per_step=self.rows_per_step,
            seed=training.seed,
            steps=training.steps,
            minutes=training.minutes,
            optimizer=self.optimizer,  # type: ignore[arg-type] # checked there
            rate=self.learning_rate,
            matrix_rate=self.matrix_rate,
            router_aux=self.router_aux,
            freeze_router=self.freeze_router,
            shapes_only=training.dry_run,
        )


@with_option_groups
def adapt(
    source: Annotated[
        str, typer.Option("--from", help="Folder of a Qwen3, Qwen3-MoE or SDAR checkpoint, or lacuna-tiny-ar.")
    ],
    *,
    convert_only: Annotated[bool, typer.Option("--convert-only", help="Convert without training.")] = False,
    options: AdaptOptions,
    training: TrainingOptions,
) -> None:
    """Turn an autoregressive checkpoint into a block-diffusion one (SDAR) that Lacuna serves.

    Weights are taken as they are; config, mask token and tokenizer's files are set up; then the model learns to fill
    blocks. Rows of data are {"text"}, {"prompt", "answer"} or {"messages": [...]}; unusable ones are counted and named.
    """
    config = options.config(resolve_checkpoint(source), training)
    if convert_only:
        _convert(config, training.output)
    else:
        run_training(training, lambda: _job(config))


def _job(config: AdaptConfig) -> Job:
    from engine.training.adapt import adapt_job
    from engine.training.world import World

    job, notes = adapt_job(config)
    for note in notes if World.of_environment().is_first else ():
        print(note, file=sys.stderr)
    return job


def _convert(config: AdaptConfig, output: Path) -> None:
    from engine.training.adapt import convert_only

    for note in convert_only(config, output):
        print(note, file=sys.stderr)
    print(output)


def _list(text: str, kind: Callable[[str], T], name: str) -> tuple[T, ...]:
    try:
        return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        option = name.replace("_", "-")
        raise ConfigError(f"--{option}: {text!r} is not a list of numbers separated by commas", name) from None
