"""``lacuna compare``: strategies on the same prompts, with a report."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli import options
from engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from deployments.experiments.outcome import Observation
    from engine.evaluation.tasks.sample import Sample
    from engine.llm_engine import LLMEngine
    from engine.sampling_params import SamplingParams


def compare(
    strategy: Annotated[
        list[str],
        typer.Option(
            "--strategy",
            "-s",
            help="Two or more. A decoder, a preset, `threshold,threshold=0.8,cache=dual` or JSON; the others are "
            "compared with the first.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for compare.html, .json and .csv.")],
    model: options.Model = options.DEFAULT_MODEL,
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of built-in question; may be repeated.", show_default="all")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Held-out prompts per kind.", min=1)] = 50,
    data: Annotated[
        Path | None,
        typer.Option(help='JSON lines {"prompt", "answer", "kind"} instead of built-in ones.', show_default="none"),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="Measure that decides: accuracy, tokens_per_s, nfe, tpf, positions_per_token, length.")
    ] = "accuracy",
    alpha: Annotated[float, typer.Option(help="Error rate; intervals are 1 - alpha.", min=0.0001, max=0.4999)] = 0.05,
    max_tokens: Annotated[int, typer.Option(help="Most tokens per answer.")] = 96,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the held-out prompts and of drawing.")] = 0,
    slots: Annotated[int, typer.Option(help="Prompts that run at the same time: a batch.", min=1)] = 16,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = "none",
    threads: options.Threads = 0,
) -> None:
    """Compare strategies on a data set, paired by prompt, and write a report (HTML, JSON, CSV)."""
    from deployments.experiments.offline import OfflineOptions, measure_named, summarise_offline
    from deployments.experiments.report.files import write_report
    from deployments.experiments.report.table import print_table
    from engine.evaluation.datasets import held_out_set, read_jsonl
    from engine.sampling_params import SamplingParams

    named = _named(strategy)
    settings = OfflineOptions(name="compare", model=model, metric=measure_named(metric).name, alpha=alpha, batch=slots)
    sampling = options.checked(SamplingParams, max_tokens=max_tokens, temperature=temperature, seed=seed)
    samples = read_jsonl(data) if data is not None else held_out_set(kind, count, seed)
    if data is not None and kind:
        samples = [sample for sample in samples if sample.kind in kind]
    if not samples:
        raise InvalidRequestError("--kind: the data set has no prompt of these kinds", "kind")
    engine = options.load_engine(model, options.engine_config(device, dtype, quantization, threads, slots))
    summary = summarise_offline(settings, named, _run(engine, samples, sampling, named, slots))
    print_table(summary)
    for path in write_report(summary, out):
        print(f"wrote {path}", file=sys.stderr)


def _named(texts: Sequence[str]) -> dict[str, dict[str, object]]:
    """Options by label, which is the text that the user wrote."""
    from engine.strategy_text import parse_strategy_text

    if len(texts) < 2:
        raise InvalidRequestError("--strategy: give at least two to compare", "strategy")
    if len(set(texts)) < len(texts):
        raise InvalidRequestError("--strategy: every strategy may be given once", "strategy")
    return {text: parse_strategy_text(text) for text in texts}


def _run(
    engine: LLMEngine,
    samples: Sequence[Sample],
    sampling: SamplingParams,
    named: Mapping[str, Mapping[str, object]],
    batch: int,
) -> dict[str, list[Observation]]:
    """With a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from deployments.experiments.offline import run_strategies

    strategies = {label: engine.strategy(given) for label, given in named.items()}
    console = Console(stderr=True)
    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("comparing", total=len(samples) * len(strategies))

        def on_progress(finished: int, total: int) -> None:
            bar.update(task, completed=finished, total=total)

        return run_strategies(engine, samples, sampling, strategies, batch, on_progress)
