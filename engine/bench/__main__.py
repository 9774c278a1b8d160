"""``python -m engine.bench``: offline measurements of the engine."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from engine.bench.goldens import command as goldens
from engine.bench.goldens.engines import load_engine
from engine.bench.ranks import command as ranks
from engine.bench.references import command as references
from engine.bench.scheduling import command as scheduling
from engine.bench.selection import command as selection
from engine.bench.throughput import command as throughput

SERVICE = "serve"
WIDTH = 160
"""Columns of tables that go into a file or a pipe."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the chosen measurement; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    replay = commands.add_parser("goldens", help="replay recorded runs of the reference implementations")
    goldens.add_arguments(replay)
    speed = commands.add_parser("throughput", help="tokens per second and where the time goes")
    throughput.add_arguments(speed)
    beside = commands.add_parser("references", help="the published decoding loops beside the engine, at equal tokens")
    references.add_arguments(beside)
    deciding = commands.add_parser("selection", help="what decoders cost beside the forward")
    selection.add_arguments(deciding)
    sharded = commands.add_parser("ranks", help="what several ranks cost beside one: time and bytes of their exchange")
    ranks.add_arguments(sharded)
    waiting = commands.add_parser("queue", help="cost of a token while 1 to 256 requests wait")
    scheduling.add_queue_arguments(waiting)
    mixture = commands.add_parser("interference", help="steps of small requests beside a long prompt")
    scheduling.add_interference_arguments(mixture)
    commands.add_parser(SERVICE, help="load on a service: python -m deployments.bench serve")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [SERVICE]:
        return _refer(words, console)
    arguments = parser.parse_args(words)
    runs: dict[str, Callable[[], int]] = {
        "goldens": lambda: goldens.run(arguments, load_engine, console),
        "throughput": lambda: throughput.run(arguments, words, console),
        "references": lambda: references.run(arguments, console),
        "selection": lambda: selection.run(arguments, console),
        "ranks": lambda: ranks.run(arguments, console),
        "queue": lambda: scheduling.run_queue(arguments, console),
        "interference": lambda: scheduling.run_interference(arguments, console),
    }
    return runs[arguments.command]()


def _refer(words: Sequence[str], console: Console) -> int:
    """The engine knows no service; who measures one does."""
    console.print(f"A service is measured by: python -m deployments.bench {shlex.join(words)}", markup=False)
    return 2


if __name__ == "__main__":
    sys.exit(main())
