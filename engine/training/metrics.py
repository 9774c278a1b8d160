"""What is known about a running training, and the files that keep it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ConfigError
from engine.training.job import BadRows

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SCALARS = ("loss", "rate", "gradient_norm", "tokens_per_s", "samples", "dropped_rows", "bad_rows", "memory_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """State of a running training. ``loss``, ``gradient_norm`` and ``tokens_per_s`` (of all processes) are means over
    the last interval of reports.

    ``rate`` is the share of the peak learning rates. ``dropped_rows`` were too long, ``bad_rows`` could not be read;
    ``memory_bytes`` is the peak of the first process, or of its device. ``scores`` are the job's own
    numbers, present when a validation just ended.
    """

    step: int
    fraction: float
    loss: float
    rate: float
    gradient_norm: float
    samples: int
    tokens_per_s: float
    elapsed_s: float
    dropped_rows: int = 0
    bad_rows: int = 0
    memory_bytes: int = 0
    scores: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Where a training writes: everything beside the folder of its checkpoint."""

    output: Path

    @property
    def state(self) -> Path:
        return self._beside(".state")

    @property
    def metrics(self) -> Path:
        return self._beside(".metrics.jsonl")

    @property
    def bad_rows(self) -> Path:
        return self._beside(".bad_rows.jsonl")

    @property
    def tensorboard(self) -> Path:
        return self._beside(".tensorboard")

    def _beside(self, ending: str) -> Path:
        return self.output.with_name(self.output.name + ending)


class MetricsLog:
    """Appends reports to a JSONL file and, with a ``tensorboard`` folder, to TensorBoard's events; bad rows to a file
    of their own. Used by the first process alone."""

    def __init__(self, files: RunFiles, tensorboard: Path | None) -> None:
        files.output.parent.mkdir(parents=True, exist_ok=True)
        self._files = files
        self._tensorboard = tensorboard
        self._writer: SummaryWriter | None = None

    def begin(self) -> None:
        """Forget an earlier training's lines; a folder of TensorBoard elsewhere may hold other trainings and stays."""
        self._files.metrics.unlink(missing_ok=True)
        self._files.bad_rows.unlink(missing_ok=True)
        if self._tensorboard is not None:
            if self._tensorboard == self._files.tensorboard:
                shutil.rmtree(self._tensorboard, ignore_errors=True)
            self._writer = _summary_writer(self._tensorboard, None)

    def go_on(self, step: int, bad_rows: int) -> None:
        """Cut the lines that were written after the state that is resumed; what they tell comes again."""
        _keep(self._files.metrics, lambda index, line: bool(json.loads(line)["step"] <= step))
        _keep(self._files.bad_rows, lambda index, line: index < bad_rows)
        if self._tensorboard is not None:
            self._writer = _summary_writer(self._tensorboard, step + 1)

    def report(self, progress: TrainProgress) -> None:
        """Append one report."""
        _append(self._files.metrics, [asdict(progress)])
        if self._writer is not None:
            for name in SCALARS:
                self._writer.add_scalar(f"train/{name}", getattr(progress, name), progress.step)
            for name, score in (progress.scores or {}).items():
                self._writer.add_scalar(f"validation/{name}", score, progress.step)
            self._writer.flush()

    def name_bad_rows(self, bad_rows: BadRows | None) -> None:
        """Append the bad rows that were found since the last call."""
        if bad_rows is not None and (rows := bad_rows.take_unwritten()):
            _append(self._files.bad_rows, rows)

    def close(self) -> None:
        """End the event file."""
        if self._writer is not None:
            self._writer.close()


def _append(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def _keep(path: Path, wanted: Callable[[int, str], bool]) -> None:
    """Rewrite a file of lines with those that are wanted; an unfinished last line goes as well."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        path.write_text("".join(line for index, line in enumerate(lines) if wanted(index, line)))


def _summary_writer(folder: Path, purge_step: int | None) -> SummaryWriter:
    """Imported when it is needed; what older event files hold from ``purge_step`` on is hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        message = "--tensorboard needs the package tensorboard: pip install 'lacuna-serve[train]'"
        raise ConfigError(message, "tensorboard") from None
    return SummaryWriter(str(folder), purge_step=purge_step)
