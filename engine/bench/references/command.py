"""``python -m engine.bench references``: the published decoding loops beside the engine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from engine.bench.lengths import add_mix, completion_lens, in_words
from engine.bench.references.measure import Comparison, Cost, Engine, Published, Workload, compare
from engine.bench.references.network import PublishedNetwork
from engine.bench.throughput.roofline import Clock
from engine.bench.throughput.shapes import SHAPES, random_model, shape
from engine.config import DTYPES, EngineConfig, resolve_dtype
from engine.errors import ConfigError, LacunaError
from engine.models.spec import ModelSpec

LABELS = ("shape", "requests", "block", "threshold")
"""Columns that name a workload."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--shape", nargs="+", default=["llada-83m", "sdar-70m"], help=f"random weights in these: {', '.join(SHAPES)}"
    )
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8], help="requests of a workload")
    add_mix(parser)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--generate", type=int, default=128, help="tokens of the longest completion")
    parser.add_argument("--block-length", type=int, nargs="+", help="positions of a block (default: the shape's)")
    parser.add_argument(
        "--threshold",
        nargs="+",
        default=["0.9"],
        metavar="T|none",
        help="confidence that fills a position; none: one position at each step",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of one torch operation")
    parser.add_argument("--dtype", choices=["auto", *DTYPES], default="auto", help="of both sides")
    parser.add_argument("--engine-dtype", choices=["auto", *DTYPES], help="of the engine alone")
    parser.add_argument("--repeat", type=int, default=2, help="runs of each side, in turns; the fastest counts")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="cpu", help="what a second is")
    parser.add_argument("--output", type=Path, help="also write the results there, as JSON")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Measure, print, write; the exit code."""
    torch.set_num_threads(arguments.threads)
    table = _empty_table(arguments)
    rows: list[dict[str, object]] = []
    try:
        with console.status("random weights", refresh_per_second=1) as status:
            for name in arguments.shape:
                for workload, comparison in _comparisons(name, arguments, status.update):
                    labels = _labels(name, workload)
                    table.add_row(*labels.values(), *_cells(comparison))
                    rows.append({**labels, **comparison.to_dict()})
    except LacunaError as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        return 2
    console.print(table)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _comparisons(
    name: str, arguments: argparse.Namespace, show: Callable[[str], None]
) -> Iterator[tuple[Workload, Comparison]]:
    show(f"{name}: random weights")
    spec, device = shape(name), torch.device("cpu")
    clock = Clock(device, cpu=arguments.clock == "cpu")
    dtypes = [
        resolve_dtype(EngineConfig(dtype=one), device, torch.float32)
        for one in (arguments.dtype, arguments.engine_dtype or arguments.dtype)
    ]
    published = Published(PublishedNetwork(random_model(spec, dtypes[0], device)), clock).ways()
    largest, longest = max(arguments.requests), arguments.prompt + arguments.generate
    config = EngineConfig(
        device="cpu", max_num_seqs=largest, max_num_batched_tokens=largest * longest, prefix_sharing=False
    )
    engine = Engine(random_model(spec, dtypes[1], device), config, longest, clock)
    for workload in _workloads(spec, arguments):
        words = ", ".join(f"{label} {value}" for label, value in _labels(name, workload).items())
        for comparison in compare(published, engine, workload, arguments.repeat, _after(words, show)):
            yield workload, comparison


def _after(words: str, show: Callable[[str], None]) -> Callable[[str], None]:
    return lambda run: show(f"{words}: {run}")


def _workloads(spec: ModelSpec, arguments: argparse.Namespace) -> Iterator[Workload]:
    """Prompts of seeded random ids."""
    rng = np.random.default_rng(0)
    for block_length in arguments.block_length or [spec.block_length]:
        if arguments.generate % block_length:
            raise ConfigError(
                f"--generate {arguments.generate} is no multiple of the block length {block_length}, which the "
                "published loops ask for",
                "generate",
            )
        for count in arguments.requests:
            prompts = rng.integers(0, spec.mask_token_id, (count, arguments.prompt)).tolist()
            lens = completion_lens(count, arguments.generate, arguments.mixed)
            lengths = [-(-length // block_length) * block_length for length in lens]
            for word in arguments.threshold:
                threshold = None if word == "none" else _threshold(word)
                yield Workload(prompts=prompts, lengths=lengths, block_length=block_length, threshold=threshold)


def _threshold(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ConfigError(f"--threshold {word!r} is neither a number nor none", "threshold") from None


def _empty_table(arguments: argparse.Namespace) -> Table:
    title = (
        f"prompt {arguments.prompt}, {in_words(arguments.generate, arguments.mixed)}, "
        f"{arguments.threads} thread(s), {arguments.clock} time, dtype {arguments.dtype}"
        f"{'' if arguments.engine_dtype is None else f' (engine: {arguments.engine_dtype})'}"
    )
    table = Table(title=title, title_justify="left")
    for head in (*LABELS, "reference"):
        table.add_column(head, overflow="fold")
    for head in (
        "s",
        "forwards",
        "positions",
        "engine s",
        "forwards",
        "positions",
        "times as fast",
        "same completions",
    ):
        table.add_column(head, justify="right")
    return table


def _labels(name: str, workload: Workload) -> Mapping[str, str]:
    threshold = "none" if workload.threshold is None else f"{workload.threshold:g}"
    return dict(zip(LABELS, (name, str(len(workload.prompts)), str(workload.block_length), threshold), strict=True))


def _cells(comparison: Comparison) -> Iterator[str]:
    yield comparison.reference
    for cost in (comparison.published, comparison.engine):
        yield from _cost(cost)
    yield f"{comparison.ratio:.2f}"
    yield f"{comparison.equal_tokens} of {len(comparison.engine.tokens)}"


def _cost(cost: Cost) -> Iterator[str]:
    yield f"{cost.seconds:.2f}"
    yield str(cost.forwards)
    yield str(cost.positions)
