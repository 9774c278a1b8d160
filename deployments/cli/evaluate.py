"""``lacuna eval``: exact-match accuracy, forwards and speed of strategies."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deployments.cli import eval_autoregressive, eval_options, options
from deployments.cli.questions import Questions
from deployments.config import resolve_checkpoint
from engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from engine.evaluation.comparison import Comparison, Entry
    from engine.evaluation.evaluate import EvalConfig
    from engine.evaluation.tasks.sample import Sample
    from engine.llm_engine import LLMEngine
    from engine.sampling_params import SamplingParams
    from engine.strategy import Strategy


def evaluate(
    context: typer.Context,
    model: options.Model = options.DEFAULT_MODEL,
    strategy: eval_options.Strategies = None,
    kind: eval_options.Kinds = None,
    count: eval_options.Count = 50,
    data: eval_options.Data = None,
    format_: eval_options.FormatName = "auto",
    mode: eval_options.ModeName = "auto",
    shots: eval_options.Shots = None,
    shots_data: eval_options.ShotsData = None,
    samples: eval_options.NumSamples = 1,
    max_tokens: eval_options.MaxTokens = None,
    temperature: eval_options.Temperature = 0.0,
    seed: eval_options.Seed = 0,
    allow_code: eval_options.AllowCode = False,
    code_seconds: eval_options.CodeSeconds = 5,
    decoder: options.Decoder = "",
    cache: options.Cache = "",
    block_length: options.BlockLength = 0,
    slots: eval_options.Slots = 16,
    out: eval_options.Out = None,
    as_json: eval_options.AsJson = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = "none",
    threads: options.Threads = 0,
) -> None:
    """Evaluate one strategy, or compare several, on held-out questions.

    Without --strategy every knob of the decoder and the cache policy is an option too, e.g. --threshold 0.9 (see
    `lacuna strategies`). Strategies run one after the other on the same prompts; differences are paired by prompt.
    An autoregressive checkpoint (Qwen3, Llama...) is decoded greedily, one token per forward.
    """
    from engine.evaluation.autoregressive import is_autoregressive
    from engine.evaluation.comparison import Comparison
    from engine.sampling_params import SamplingParams

    named = _named(strategy or [], options.strategy_options(decoder, cache, block_length, context.args))
    questions = Questions.read(data, format_, kind, count, seed)
    verifier = questions.verifier(allow_code, code_seconds)
    limit = questions.format.max_tokens if max_tokens is None else max_tokens
    sampling = options.checked(SamplingParams, max_tokens=limit, temperature=temperature, seed=seed)
    ask = partial(
        questions.configure, verifier=verifier, mode=mode, shots=shots, shots_data=shots_data, num_samples=samples
    )
    engine_config = options.engine_config(device, dtype, quantization, threads, slots)
    if is_autoregressive(folder := resolve_checkpoint(model)):
        eval_autoregressive.check_greedy([label for label in named if named[label]], temperature, samples)
        entries = eval_autoregressive.run(folder, engine_config, limit, ask)
    else:
        engine = options.load_engine(model, engine_config)
        config, asked = ask(engine.tokenizer)
        strategies = {label: engine.strategy(given) for label, given in named.items()}
        entries = _run(engine, asked, sampling, strategies, config)
    comparison = Comparison(model, entries)
    _say_what_was_too_long(comparison)
    _print(comparison, out, as_json)


def _named(texts: Sequence[str], knobs: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Options of each strategy by its label, which is the text that the user wrote."""
    from engine.strategy_text import parse_strategy_text

    if texts and knobs:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in knobs)
        raise InvalidRequestError(f"{given}: write it into --strategy, e.g. threshold,threshold=0.9", "strategy")
    if len(set(texts)) < len(texts):
        raise InvalidRequestError("--strategy: every strategy may be given once", "strategy")
    if texts:
        return {text: parse_strategy_text(text) for text in texts}
    return {",".join(f"{name}={value}" for name, value in knobs.items()) or "default": knobs}


def _run(
    engine: LLMEngine,
    samples: Sequence[Sample],
    sampling: SamplingParams,
    strategies: Mapping[str, Strategy],
    config: EvalConfig,
) -> tuple[Entry, ...]:
    """Evaluate with one progress bar per strategy on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from engine.evaluation.evaluate import EvalProgress, evaluate_all

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks = {label: bar.add_task(label, total=len(samples), start=False) for label in strategies}

        def on_progress(label: str, progress: EvalProgress) -> None:
            bar.start_task(tasks[label])
            description = label if progress.stage == "answers" else f"{label}: marking"
            bar.update(tasks[label], description=description, completed=progress.finished, total=progress.total)

        return evaluate_all(engine, samples, sampling, strategies, on_progress, config)


def _say_what_was_too_long(comparison: Comparison) -> None:
    from engine.evaluation.evaluate import TOO_LONG

    answers = comparison.entries[0].report.answers
    number = sum(answer.reason == TOO_LONG for answer in answers)
    if number:
        text = f"{number} of {len(answers)} prompts are too long for the model with so many --max-tokens: marked wrong"
        print(f"lacuna: {text}", file=sys.stderr)


def _print(comparison: Comparison, out: Path | None, as_json: bool) -> None:
    from engine.evaluation.files import write_files

    if out is not None:
        for path in write_files(comparison, out):
            print(f"wrote {path}", file=sys.stderr)
    one = comparison.entries[0].report if len(comparison.entries) == 1 else comparison
    print(json.dumps(one.to_dict()) if as_json else one.to_table())
