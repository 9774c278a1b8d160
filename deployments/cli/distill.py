"""``lacuna distill``: fewer denoising steps from a model's own right answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.option_groups import with_option_groups
from deployments.cli.training_options import TrainingOptions, run_training
from deployments.cli.trajectories import TrajectoryOptions, by_first, collected, read
from deployments.config import resolve_checkpoint
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.training.distill import DistillConfig
    from engine.training.job import Job
    from engine.training.trajectories import Collection


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """How trajectories are learned."""

    compress: Annotated[str, typer.Option(help="Rounds that one jump covers.")] = "2..8"
    control: Annotated[bool, typer.Option("--control", help="Random masks instead of jumps, on the same answers.")] = (
        False
    )
    replay_share: Annotated[float, typer.Option(help="Share of ordinary rows, to keep what is known.")] = 0.25
    answer_tokens: Annotated[str, typer.Option(help="Use answers of this many tokens.")] = "2..4096"
    tokens_per_step: Annotated[int, typer.Option(help="Tokens of a batch, padding included.", min=64)] = 2304
    matrix_rate: Annotated[float, typer.Option(help="Peak rate of the matrices (Muon); 0: AdamW.", min=0)] = 0.003
    rate: Annotated[float, typer.Option(help="Peak rate of everything else (AdamW).")] = 0.0006

    def config(self, source: Path, training: TrainingOptions) -> DistillConfig:
        """As the engine takes them. ConfigError for ranges that are none."""
        from engine.training.distill import DistillConfig
        from engine.training.transitions import Compress

        return DistillConfig(
            source=source,
            control=self.control,
            compress=Compress(*_range(self.compress, "compress")),
            replay_share=self.replay_share,
            answer_tokens=_range(self.answer_tokens, "answer_tokens"),
            seed=training.seed,
            steps=training.steps,
            minutes=training.minutes,
            tokens_per_step=self.tokens_per_step,
            matrix_rate=self.matrix_rate or None,
            rate=self.rate,
        )


@with_option_groups
def distill(
    teacher: Annotated[
        str, typer.Option("--from", help="Folder of a checkpoint, or the id of an embedded model.", show_default=False)
    ],
    *,
    trajectories: Annotated[
        Path | None, typer.Option(help="Use this file instead of decoding.", show_default="OUTPUT.trajectories.jsonl")
    ] = None,
    decoding: TrajectoryOptions,
    options: DistillOptions,
    training: TrainingOptions,
) -> None:
    """Teach a model to fill in more tokens at a step, from its own right answers.

    The model decodes training prompts. Answers that a verifier marks right are learned from, with the step at which
    each token was filled in: training jumps from one state of the canvas over several rounds at once. All attempts are
    kept in OUTPUT.trajectories.jsonl, and a run that was broken off goes on there. With --control the same answers are
    learned with random masks: `lacuna distill-report` compares all three.
    """
    from engine.training.distill import distill_job

    training.check()
    config = options.config(resolve_checkpoint(teacher), training)
    beside = training.output.with_name(training.output.name + ".trajectories.jsonl")
    if training.uses_deepspeed and options.matrix_rate:
        message = "DeepSpeed, which several processes need, divides AdamW, not Muon: give --matrix-rate 0"
        raise ConfigError(message, "matrix_rate")

    def collect() -> Collection:
        return collected(teacher, decoding, training, beside)

    def job() -> Job:
        found = read(trajectories) if trajectories else by_first(collect, beside)
        return distill_job(config, found.heading, found.accepted)

    run_training(training, job)


def _range(text: str, option: str) -> tuple[int, int]:
    try:
        low, high = map(int, text.split(".."))
    except ValueError:
        raise ConfigError(f"--{option.replace('_', '-')}: {text!r} is not a range like 2..8", option) from None
    return low, high
