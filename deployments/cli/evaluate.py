"""``lacuna eval``: exact-match accuracy, forwards and speed of a strategy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli import options


def evaluate(
    context: typer.Context,
    model: options.Model = options.DEFAULT_MODEL,
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of question; may be repeated.", show_default="all")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Held-out prompts per kind.", min=1)] = 50,
    data: Annotated[
        Path | None,
        typer.Option(
            help='JSON lines {"prompt", "answer", "kind"} instead of the built-in tasks.', show_default="none"
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens per answer.")] = 96,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the held-out prompts and of drawing.")] = 0,
    decoder: options.Decoder = "",
    cache: options.Cache = "",
    block_length: options.BlockLength = 0,
    slots: Annotated[int, typer.Option(help="Prompts that run at the same time.", min=1)] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = 0,
) -> None:
    """Evaluate a strategy on held-out questions.

    Every knob of the decoder and the cache policy is an option too, e.g. --threshold 0.9 (see `lacuna strategies`).
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from engine.evaluation.datasets import held_out_set, read_jsonl
    from engine.evaluation.evaluate import EvalProgress
    from engine.evaluation.evaluate import evaluate as run
    from engine.sampling_params import SamplingParams

    strategy_options = options.strategy_options(decoder, cache, block_length, context.args)
    sampling = options.checked(SamplingParams, max_tokens=max_tokens, temperature=temperature, seed=seed)
    samples = read_jsonl(data) if data is not None else held_out_set(kind, count, seed)
    if data is not None and kind:
        samples = [sample for sample in samples if sample.kind in kind]
    engine = options.load_engine(model, device, dtype, threads, slots)
    strategy = engine.strategy(strategy_options)
    bar = Progress(
        TextColumn("evaluating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("evaluating", total=len(samples))

        def on_progress(progress: EvalProgress) -> None:
            bar.update(task, completed=progress.finished)

        report = run(engine, samples, sampling, strategy, on_progress)
    print(json.dumps(report.to_dict()) if as_json else report.to_table())
