"""How long the completions of a workload are."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

MIXES: Mapping[str, Callable[[int, int], float]] = {
    "none": lambda _rank, _count: 1.0,
    "even": lambda rank, count: 1 - 0.75 * (rank - 1) / count,
    "skewed": lambda rank, _count: 1 / rank,
}
"""The share of the longest completion that the one of a rank has, the longest being of rank 1."""


def add_mix(parser: argparse.ArgumentParser) -> None:
    """The option ``--mixed``, as which the command gets a name of ``MIXES``."""
    parser.add_argument(
        "--mixed",
        nargs="?",
        choices=[name for name in MIXES if name != "none"],
        const="even",
        default="none",
        help="completions of different lengths: even (what --mixed alone says), down to a quarter of the longest; "
        "skewed, few long ones among short ones, the second half as long as the longest, the third a third and so on",
    )


def completion_lens(count: int, longest: int, mix: str) -> list[int]:
    """Tokens of so many completions, of one at least each, the longest last."""
    return [max(round(longest * MIXES[mix](rank, count)), 1) for rank in range(count, 0, -1)]


def in_words(longest: int, mix: str) -> str:
    """For a table's title."""
    return f"completions {longest}" if mix == "none" else f"completions up to {longest} ({mix})"
