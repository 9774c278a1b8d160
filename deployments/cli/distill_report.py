"""``lacuna distill-report``: teacher, distilled and control models on the same prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli import options
from deployments.cli.questions import Questions
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.evaluation.distillation import Distillation, Role

FEW_PROMPTS = 500


def distill_report(
    teacher: Annotated[str, typer.Option(help="The model that was distilled.", show_default=False)],
    distilled: Annotated[
        list[str], typer.Option(help="A distilled model; may be repeated (seeds).", show_default=False)
    ],
    control: Annotated[
        list[str] | None, typer.Option(help="A control model; may be repeated (seeds).", show_default="none")
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option("--strategy", "-s", help="As for lacuna eval; may be repeated.", show_default="the teacher's own"),
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of question; may be repeated.", show_default="all")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Held-out prompts per kind.", min=1)] = 100,
    data: Annotated[
        Path | None, typer.Option(help="Questions (JSON lines), as for lacuna eval.", show_default="the built-in tasks")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens per answer.", min=1)] = 96,
    seed: Annotated[int, typer.Option(help="Seed of the held-out prompts.")] = 0,
    slots: Annotated[int, typer.Option(help="Prompts that run at the same time.", min=1)] = 16,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run code that models write, in a sandbox.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.md, report.json and report.svg.", show_default="none")
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = "none",
    threads: options.Threads = 0,
) -> None:
    """Compare a teacher, models distilled from it and their controls on the same held-out prompts.

    Prints accuracy, forwards (NFE), tokens per forward (TPF) and tokens/s with 95 % intervals, and what is due to the
    trajectories: the distilled models against the controls, which learned the same answers with random masks.
    """
    from engine.evaluation.distillation import Distillation, ModelRun
    from engine.evaluation.evaluate import evaluate_all
    from engine.sampling_params import SamplingParams
    from engine.strategy_text import parse_strategy_text

    questions = Questions.read(data, "auto", kind, count, seed)
    if len(questions.samples) < FEW_PROMPTS:
        print(f"lacuna: {len(questions.samples)} prompts are few; differences of some points need 500", file=sys.stderr)
    verifier = questions.verifier(allow_code, 10)
    sampling = options.checked(SamplingParams, max_tokens=max_tokens, seed=seed)
    roles: list[tuple[Role, str]] = [("teacher", teacher), *(("distilled", name) for name in distilled)]
    roles += [("control", name) for name in control or ()]
    named = {text: parse_strategy_text(text) for text in strategy} if strategy else {"default": {}}
    runs = []
    for role, name in roles:
        print(f"{role} {name}", file=sys.stderr, flush=True)
        engine = options.load_engine(name, options.engine_config(device, dtype, quantization, threads, slots))
        config, asked = questions.configure(engine.tokenizer, verifier, "auto", None, None, 1)
        strategies = {label: engine.strategy(given) for label, given in named.items()}
        runs.append(ModelRun(role, name, evaluate_all(engine, asked, sampling, strategies, config=config)))
    _print(Distillation(tuple(runs)), out)


def _print(found: Distillation, out: Path | None) -> None:
    from engine.evaluation.distillation_plot import write_distillation_plot

    page = found.to_markdown()
    print(page)
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(page + "\n", encoding="utf-8")
        (out / "report.json").write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
        write_distillation_plot(found, out / "report.svg")
    except OSError as error:
        raise ConfigError(f"The folder {out} cannot be written: {error}.", "out") from error
