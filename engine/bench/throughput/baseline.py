"""Another commit beside this one: the benchmark of both in turns, of which only ratios are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from engine.bench.revisions import Ratios, checked_out, this_tree
from engine.errors import ConfigError

Results = dict[tuple[str, int], float]
"""Tokens per second by strategy and batch size."""


def compare_with(
    revision: str, argv: Sequence[str], rounds: int, on_run: Callable[[str], None] = lambda run: None
) -> dict[tuple[str, int], Ratios]:
    """Tokens/s of this tree over those of ``revision``, by strategy and batch size. ``on_run`` is told what runs."""
    here = this_tree()
    ratios: dict[tuple[str, int], list[float]] = {}
    with checked_out(here, revision) as there:
        for number in range(1, rounds + 1):
            on_run(f"round {number} of {rounds}: {revision}")
            old = _measure(there, argv)
            on_run(f"round {number} of {rounds}: this tree")
            for key, speed in _measure(here, argv).items():
                ratios.setdefault(key, []).append(speed / old[key])
    return {key: Ratios.of(values) for key, values in ratios.items()}


def table_of(ratios: Mapping[tuple[str, int], Ratios], revision: str, rounds: int) -> Table:
    """For a reader."""
    table = Table(title=f"tokens/s of this tree over those of {revision}, {rounds} rounds", title_justify="left")
    for head in ("strategy", "batch", "median", "least", "greatest"):
        table.add_column(head, overflow="fold")
    for (strategy, batch), found in ratios.items():
        table.add_row(strategy, str(batch), *(f"{value:.3f}" for value in found.to_dict().values()))
    return table


def _measure(tree: Path, argv: Sequence[str]) -> Results:
    """The benchmark of ``tree`` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "results.json"
        command = [
            sys.executable,
            "-m",
            "engine.bench",
            *_without_baseline(argv),
            "--repeat",
            "1",
            "--output",
            str(output),
        ]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"the benchmark of {tree} failed: {(done.stderr or done.stdout).strip()[-800:]}")
        rows = json.loads(output.read_text())["results"]
    return {(row["strategy"], row["batch"]): row["tokens_per_s"] for row in rows}


def _without_baseline(argv: Sequence[str]) -> list[str]:
    words, kept = list(argv), []
    while words:
        word = words.pop(0)
        if word == "--baseline":
            words.pop(0)
        elif not word.startswith("--baseline="):
            kept.append(word)
    return kept
