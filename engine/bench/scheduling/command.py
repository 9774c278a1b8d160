"""Options and tables of ``python -m engine.bench queue`` and ``interference``."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from engine.bench.scheduling.interference import (
    CLOCKS,
    Interference,
    InterferenceWorkload,
    StepTimes,
    measure_interference,
)
from engine.bench.scheduling.queue import QueueRow, QueueWorkload, measure_queue
from engine.bench.throughput.shapes import SHAPES
from engine.errors import ConfigError, LacunaError
from engine.strategy_text import parse_strategy_text, parse_value


def add_queue_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``queue``."""
    defaults = QueueWorkload()
    _add_engine_arguments(parser, "llada-tiny")
    parser.add_argument("--queued", type=_positive, nargs="+", default=list(defaults.depths), help="requests that wait")
    parser.add_argument("--prompt", type=_positive, default=defaults.prompt_len, help="tokens of each prompt")
    parser.add_argument("--generate", type=_positive, default=defaults.max_tokens, help="tokens of each completion")
    parser.add_argument("--requests", type=_positive, default=defaults.requests, help="that finish per measurement")


def add_interference_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``interference``."""
    defaults = InterferenceWorkload()
    _add_engine_arguments(parser, "sdar-tiny")
    parser.add_argument("--small", type=_positive, default=defaults.small, help="small requests at once")
    parser.add_argument("--small-prompt", type=_positive, default=defaults.small_prompt)
    parser.add_argument("--small-generate", type=_positive, default=defaults.small_tokens)
    parser.add_argument("--small-requests", type=_positive, default=defaults.small_requests, help="that finish alone")
    parser.add_argument("--long", type=_positive, default=defaults.long, help="long requests at once")
    parser.add_argument("--long-prompt", type=_positive, default=defaults.long_prompt)
    parser.add_argument("--long-generate", type=_positive, default=defaults.long_tokens)
    parser.add_argument("--long-requests", type=_positive, default=defaults.long_requests, help="that finish")
    parser.add_argument("--clock", choices=CLOCKS, default=defaults.clock, help="cpu: where other work disturbs")


def _add_engine_arguments(parser: argparse.ArgumentParser, shape: str) -> None:
    parser.add_argument("--shape", default=shape, help=f"random weights in this shape: {', '.join(SHAPES)}")
    parser.add_argument("--strategy", default="{}", help="as in `lacuna eval`, or JSON (default: the model's own)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the engine")
    parser.add_argument("--threads", type=_positive, default=1, help="threads of one torch operation")
    parser.add_argument("--rounds", type=_positive, default=3, help="in which all take turns")
    parser.add_argument("--output", type=Path, help="also write the results there, as JSON")


def run_queue(arguments: argparse.Namespace, console: Console) -> int:
    """Measure, print, write; the exit code."""
    workload = QueueWorkload(
        depths=arguments.queued,
        prompt_len=arguments.prompt,
        max_tokens=arguments.generate,
        requests=arguments.requests,
        rounds=arguments.rounds,
    )
    try:
        settings, strategy = _settings(arguments), parse_strategy_text(arguments.strategy)
        rows = measure_queue(arguments.shape, settings, strategy, workload, _reporter(console))
    except LacunaError as error:
        return _refuse(error, console)
    console.print(_queue_table(rows, arguments))
    _write(arguments.output, {"results": [row.to_dict() for row in rows]})
    return 0


def run_interference(arguments: argparse.Namespace, console: Console) -> int:
    """Measure, print, write; the exit code."""
    workload = InterferenceWorkload(
        small=arguments.small,
        small_prompt=arguments.small_prompt,
        small_tokens=arguments.small_generate,
        small_requests=arguments.small_requests,
        long=arguments.long,
        long_prompt=arguments.long_prompt,
        long_tokens=arguments.long_generate,
        long_requests=arguments.long_requests,
        rounds=arguments.rounds,
        clock=arguments.clock,
    )
    try:
        settings, strategy = _settings(arguments), parse_strategy_text(arguments.strategy)
        found = measure_interference(arguments.shape, settings, strategy, workload, _reporter(console))
    except LacunaError as error:
        return _refuse(error, console)
    console.print(_interference_table(found, arguments))
    _write(arguments.output, found.to_dict())
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def _settings(arguments: argparse.Namespace) -> dict[str, object]:
    """Engine settings by name."""
    settings: dict[str, object] = {"num_threads": arguments.threads}
    for setting in arguments.set:
        name, separator, value = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set takes key=value, got {setting!r}", "set")
        settings[name] = parse_value(value)
    return settings


def _reporter(console: Console) -> Callable[[str], None]:
    """Tells people, not files, how far it is."""
    return partial(console.print, style="dim") if console.is_terminal else lambda _: None


def _refuse(error: LacunaError, console: Console) -> int:
    console.print(f"error: {error}", style="bold red", markup=False)
    return 2


def _write(path: Path | None, document: dict[str, object]) -> None:
    if path is not None:
        path.write_text(json.dumps(document | {"load": os.getloadavg()[0]}, indent=1) + "\n", encoding="utf-8")


def _queue_table(rows: Sequence[QueueRow], arguments: argparse.Namespace) -> Table:
    table = _table(
        f"{arguments.shape}: CPU time per token while requests wait, {arguments.rounds} rounds "
        f"(load of the machine {os.getloadavg()[0]:.1f})",
        "waiting",
        ("tokens", "us/token", f"x {rows[0].cost.queued} waiting", "host us/token", "x"),
    )
    for row in rows:
        cost = row.cost
        cells = (cost.tokens, f"{cost.us_per_token:.0f}", row.ratio, f"{cost.host_us_per_token:.0f}", row.host_ratio)
        table.add_row(str(cost.queued), *map(str, cells))
    return table


def _interference_table(found: Interference, arguments: argparse.Namespace) -> Table:
    table = _table(
        f"{arguments.shape}: ms ({arguments.clock} time) between two steps of a small request, alone and beside "
        f"{arguments.long} long prompt(s) of {arguments.long_prompt} tokens, {arguments.rounds} rounds",
        "beside",
        ("p50 ms", "p95 ms", "greatest ms", "steps", "steps/s of small ones", "seconds of a long one"),
    )
    for name, one in (("nothing", found.alone), ("long prompts", found.beside)):
        table.add_row(name, *_times(one))
    ratios = (found.p50_ratio, found.p95_ratio, "", "", found.rate_ratio, "")
    table.add_row("ratio", *map(str, ratios))
    return table


def _times(one: StepTimes) -> tuple[str, ...]:
    return (
        f"{one.p50_ms:.2f}",
        f"{one.p95_ms:.2f}",
        f"{one.max_ms:.2f}",
        str(one.steps),
        f"{one.steps_per_s:.1f}",
        f"{one.long_s:.2f}" if one.long_s else "",
    )


def _table(title: str, first: str, heads: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for head in heads:
        table.add_column(head, justify="right")
    return table
