"""``lacuna experiment``: what the ledger knows of live experiments."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.config import DEFAULT_LEDGER
from engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from deployments.experiments.ledger.reader import LedgerReader

experiment = typer.Typer(help="Live experiments: list and report.", no_args_is_help=True)

LedgerUrl = Annotated[
    str, typer.Option("--ledger", help="The application's `ledger`: sqlite:///FILE, postgresql://... or env:NAME")
]


@experiment.command("list")
def list_(ledger: LedgerUrl = DEFAULT_LEDGER) -> None:
    """Print every experiment of the ledger with its arms and the number of their outcomes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from deployments.experiments.report.page import time

    with _reading(ledger) as reader:
        table = Table("experiment", "model", "metric", "outcomes", "first", "last")
        for entry in reader.entries():
            counts = ", ".join(f"{arm.name} {entry.outcomes.get(arm.name, 0)}" for arm in entry.config.arms)
            cells = (entry.config.name, entry.config.model or "default", entry.config.metric, counts)
            table.add_row(*map(Text, (*cells, time(entry.first_time), time(entry.last_time))))
    Console().print(table)


@experiment.command("report")
def report(
    name: Annotated[str, typer.Option("--experiment", "-e", help="Name of the experiment.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.html, .json and .csv.")],
    ledger: LedgerUrl = DEFAULT_LEDGER,
    formats: Annotated[
        str, typer.Option("--format", help="Any of html, json, csv, with commas between.")
    ] = "html,json,csv",
) -> None:
    """Write the report of an experiment and print its numbers. It may be read at any time while the experiment runs."""
    from deployments.experiments.report.files import FORMATS, write_report
    from deployments.experiments.report.table import print_table
    from deployments.experiments.summary import summarise

    wanted = [one.strip() for one in formats.split(",") if one.strip()]
    if not wanted or (unknown := set(wanted) - set(FORMATS)):
        found = ", ".join(sorted(unknown)) if wanted else "nothing"
        raise InvalidRequestError(f"--format: choose from {', '.join(FORMATS)}, got {found}", "format")
    with _reading(ledger) as reader:
        entry = reader.entry(name)
        summary = summarise(entry, reader.observations(name, entry.revision))
    print_table(summary)
    for path in write_report(summary, out, wanted):
        print(f"wrote {path}", file=sys.stderr)


@contextmanager
def _reading(url: str) -> Iterator[LedgerReader]:
    from deployments.experiments.ledger.reader import LedgerReader

    reader = LedgerReader(url)
    try:
        yield reader
    finally:
        reader.close()
