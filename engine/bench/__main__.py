"""``python -m engine.bench``: offline measurements of the engine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from engine.bench.goldens import command as goldens
from engine.llm_engine import LLMEngine


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the chosen measurement; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    replay = commands.add_parser("goldens", help="replay recorded runs of the reference implementations")
    goldens.add_arguments(replay)
    return goldens.run(parser.parse_args(argv), LLMEngine.from_pretrained, Console())


if __name__ == "__main__":
    sys.exit(main())
