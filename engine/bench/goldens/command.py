"""``python -m engine.bench goldens PATH...``: replay, tables, one line of JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.progress import track

from engine.bench.goldens.case import Case
from engine.bench.goldens.folders import find_folders, unknown_folders
from engine.bench.goldens.replay import LoadEngine, count_replays, load_cases, replay
from engine.bench.goldens.results import MODES, Mode, group_by_kind, idle_folders, to_json
from engine.bench.goldens.table import kind_table, remarks
from engine.config import parse_engine_config
from engine.errors import ConfigError

EXIT_OK, EXIT_DIFFERENCES, EXIT_USAGE = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folder of recordings, or a parent of some")
    parser.add_argument(
        "--mode",
        choices=[*MODES, "both"],
        default="both",
        help="parity repeats the references' extra forwards, default runs the engine as it serves (default: both)",
    )
    parser.add_argument(
        "--filter", metavar="TEXT", help="only cases whose kind/id contains TEXT (or matches the pattern)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the JSON object to FILE")
    parser.add_argument("--device", default="cpu", help="where the models run (default: cpu, as recorded)")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of one torch operation (default: 1, as recorded)"
    )


def run(arguments: argparse.Namespace, load_engine: LoadEngine, console: Console) -> int:
    """Replay, print the tables and, as the last line, the JSON object; return the exit code."""
    try:
        cases = select_cases(arguments.paths, arguments.filter)
        base = parse_engine_config({"device": arguments.device, "num_threads": arguments.threads})
    except ConfigError as error:
        console.print(f"error: {error}", markup=False)
        _emit({"ok": False, "error": str(error)}, arguments.json, console)
        return EXIT_USAGE
    modes: tuple[Mode, ...] = MODES if arguments.mode == "both" else (arguments.mode,)
    results = replay(cases, modes, load_engine, base)
    total, progress = count_replays(cases, modes), Console(stderr=True)
    reports = group_by_kind(track(results, "replaying", total, console=progress, transient=True))
    for report in reports:
        console.print(kind_table(report))
    used = [path for path in arguments.paths if any(case.folder.is_relative_to(path) for case in cases)]
    idle = idle_folders(reports, used)
    for line in remarks(idle, [folder for path in arguments.paths for folder in unknown_folders(path)]):
        console.print(line, markup=False)
    ok = not idle and all(report.ok for report in reports)
    _emit(to_json(reports, ok=ok), arguments.json, console)
    return EXIT_OK if ok else EXIT_DIFFERENCES


def select_cases(paths: Sequence[Path], pattern: str | None) -> list[Case]:
    """The cases below ``paths``; ConfigError when a path holds none or the filter leaves none."""
    cases: list[Case] = []
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"{path} is no folder", "PATH")
        folders = find_folders(path)
        if not folders:
            raise ConfigError(f"{path} holds no recordings of a known kind", "PATH")
        cases += load_cases(folders)
    chosen = [case for case in cases if pattern is None or _matches(f"{case.kind}/{case.id}", pattern)]
    if not chosen:
        raise ConfigError(f"no case matches {pattern!r}", "--filter")
    return chosen


def _matches(name: str, pattern: str) -> bool:
    return pattern in name or fnmatchcase(name, pattern)


def _emit(summary: Mapping[str, object], file: Path | None, console: Console) -> None:
    line = json.dumps(summary)
    if file is not None:
        file.write_text(line + "\n", encoding="utf-8")
    console.file.write(line + "\n")
    console.file.flush()
