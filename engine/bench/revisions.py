"""Another commit beside this one, and ratios of what both did in turns on the same machine.

Machines are shared and noisy: a time alone says little, the ratio of neighbouring runs says more.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import engine
from engine.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Ratios:
    """Of neighbouring measurements, one per round."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Ratios:
        return cls(median(values), min(values), max(values))

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.least:.3f} to {self.greatest:.3f})"


def this_tree() -> Path:
    """The root of the running code."""
    return Path(engine.__file__).parents[1]


@contextmanager
def checked_out(repository: Path, revision: str) -> Iterator[Path]:
    """The files of a commit in a folder of their own, gone afterwards; ConfigError when there is no such commit."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "baseline"
        added = _git(repository, "worktree", "add", "--detach", str(target), revision)
        if added.returncode:
            raise ConfigError(f"baseline {revision!r} cannot be checked out: {added.stderr.strip()}", "baseline")
        try:
            yield target
        finally:
            _git(repository, "worktree", "remove", "--force", str(target))


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
