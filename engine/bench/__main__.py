"""``python -m engine.bench``: offline measurements of the engine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from engine.bench.goldens import command as goldens
from engine.bench.goldens.engines import load_engine
from engine.bench.ranks import command as ranks
from engine.bench.selection import command as selection
from engine.bench.throughput import command as throughput

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
    deciding = commands.add_parser("selection", help="what decoders cost beside the forward")
    selection.add_arguments(deciding)
    sharded = commands.add_parser("ranks", help="what several ranks cost beside one: time and bytes of their exchange")
    ranks.add_arguments(sharded)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    words = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(words)
    if arguments.command == "throughput":
        return throughput.run(arguments, words, console)
    if arguments.command == "selection":
        return selection.run(arguments, console)
    if arguments.command == "ranks":
        return ranks.run(arguments, console)
    return goldens.run(arguments, load_engine, console)


if __name__ == "__main__":
    sys.exit(main())
