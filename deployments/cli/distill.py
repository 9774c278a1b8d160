"""``lacuna distill``: fewer denoising steps from a model's own right answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.training_options import TrainingOptions, run_training, training_command
from deployments.cli.trajectories import SOURCES, Asked, collected, read
from deployments.config import resolve_checkpoint
from engine.errors import ConfigError


@training_command
def distill(
    teacher: Annotated[
        str, typer.Option("--from", help="Folder of a checkpoint, or the id of an embedded model.", show_default=False)
    ],
    options: TrainingOptions,
    trajectories: Annotated[
        Path | None, typer.Option(help="Use this file instead of decoding.", show_default="OUTPUT.trajectories.jsonl")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Questions with answers (JSON lines), as for lacuna eval.", show_default=SOURCES)
    ] = None,
    prompts: Annotated[int, typer.Option(help="Prompts of the built-in tasks to decode.", min=1)] = 2000,
    samples: Annotated[int, typer.Option(help="Answers to each prompt; several need a temperature.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="Of the decoding.", min=0)] = 0.0,
    strategy: Annotated[
        str, typer.Option(help="How to decode, e.g. threshold,threshold=0.95.", show_default="the model's own")
    ] = "",
    max_tokens: Annotated[int, typer.Option(help="Longest canvas.", min=2)] = 96,
    verify: Annotated[
        str, typer.Option(help="exact, number, code (runs it) or none.", show_default="what suits the data")
    ] = "",
    slots: Annotated[int, typer.Option(help="Prompts decoded at the same time.", min=1)] = 16,
    compress: Annotated[str, typer.Option(help="Rounds that one jump covers.")] = "2..8",
    control: Annotated[
        bool, typer.Option("--control", help="Random masks instead of jumps, on the same answers.")
    ] = False,
    replay_share: Annotated[float, typer.Option(help="Share of ordinary rows, to keep what is known.")] = 0.25,
    answer_tokens: Annotated[str, typer.Option(help="Use answers of this many tokens.")] = "2..4096",
    tokens_per_step: Annotated[int, typer.Option(help="Tokens of a batch, padding included.", min=64)] = 2304,
    matrix_rate: Annotated[float, typer.Option(help="Peak rate of the matrices (Muon); 0: AdamW.", min=0)] = 0.003,
    rate: Annotated[float, typer.Option(help="Peak rate of everything else (AdamW).")] = 0.0006,
) -> None:
    """Teach a model to fill in more tokens at a step, from its own right answers.

    The model decodes training prompts. Answers that a verifier marks right are learned from, with the step at which
    each token was filled in: training jumps from one state of the canvas over several rounds at once. All attempts are
    kept in OUTPUT.trajectories.jsonl, and a run that was broken off goes on there. With --control the same answers are
    learned with random masks: `lacuna distill-report` compares all three.
    """
    from engine.training.distill import DistillConfig, distill_job
    from engine.training.transitions import Compress

    options.check()
    config = DistillConfig(
        source=Path(resolve_checkpoint(teacher)),
        control=control,
        compress=Compress(*_range(compress, "compress")),
        replay_share=replay_share,
        answer_tokens=_range(answer_tokens, "answer_tokens"),
        seed=options.seed,
        steps=options.steps,
        minutes=options.minutes,
        tokens_per_step=tokens_per_step,
        matrix_rate=matrix_rate or None,
        rate=rate,
    )
    asked = Asked(
        teacher=teacher,
        data=data,
        prompts=prompts,
        samples=samples,
        temperature=temperature,
        strategy=strategy,
        max_tokens=max_tokens,
        verify=verify,
        slots=slots,
        threads=options.threads,
        seed=options.seed,
    )
    beside = options.output.with_name(options.output.name + ".trajectories.jsonl")
    found = read(trajectories) if trajectories else collected(asked, beside)
    run_training(options, lambda: distill_job(config, found.heading, found.accepted))


def _range(text: str, option: str) -> tuple[int, int]:
    try:
        low, high = map(int, text.split(".."))
    except ValueError:
        raise ConfigError(f"--{option.replace('_', '-')}: {text!r} is not a range like 2..8", option) from None
    return low, high
