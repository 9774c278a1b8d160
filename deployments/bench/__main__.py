"""``python -m deployments.bench``: measurements of the service."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deployments.bench.load import command as load
from deployments.bench.load.options import add_arguments
from deployments.bench.overhead import OverheadRow, measure_overhead
from deployments.config import EMBEDDED_MODELS

WIDTH = 180
"""Columns of a table that goes into a file or a pipe."""

COLUMNS = {
    "mode": "mode",
    "clients": "clients",
    "engine_cpu_ms": "engine CPU ms",
    "cpu_ms": "CPU ms",
    "cpu_ratio": "ratio",
    "engine_p50_ms": "engine p50 ms",
    "p50_ms": "p50 ms",
    "latency_ratio": "ratio",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the chosen measurement; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    overhead = commands.add_parser("overhead", help="what the service adds to the bare engine")
    overhead.add_argument("--model", default=EMBEDDED_MODELS[0], help="id of an embedded model, or id=folder")
    overhead.add_argument("--requests", type=int, default=100, help="answers per measurement (default: 100)")
    overhead.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="clients at once (default: 1 8)")
    overhead.add_argument("--json", type=Path, help="write the numbers to this file too")
    add_arguments(commands.add_parser("serve", help="load on a service: latency, tokens/s, CPU per answer"))
    arguments = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    return load.run(arguments, console) if arguments.command == "serve" else _overhead(arguments, parser, console)


def _overhead(arguments: argparse.Namespace, parser: argparse.ArgumentParser, console: Console) -> int:
    if arguments.requests < 1 or min(arguments.clients) < 1:
        parser.error("--requests and --clients must be at least 1")
    rows = measure_overhead(
        arguments.model,
        arguments.requests,
        arguments.clients,
        lambda what: console.print(f"measuring: {what}", style="dim"),
    )
    console.print(table(rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([row.to_dict() for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


def table(rows: Sequence[OverheadRow]) -> Table:
    """A row per mode and number of clients; per answer of 64 tokens."""
    shown = Table(title="64-token answers: CPU of all server processes and latency, per answer")
    for title in COLUMNS.values():
        shown.add_column(title, no_wrap=title == "mode", justify="left" if title == "mode" else "right")
    for row in rows:
        values = row.to_dict()
        shown.add_row(*(f"{values[name]}" for name in COLUMNS))
    return shown


if __name__ == "__main__":
    sys.exit(main())
