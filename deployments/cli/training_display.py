"""A running training on the terminal: a progress bar, or lines where nobody watches."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

if TYPE_CHECKING:
    from engine.training.job import BadRows
    from engine.training.metrics import TrainProgress


class TrainingDisplay:
    """Shows reports on a stream while its block runs; of several processes only the ``first`` has a bar."""

    def __init__(self, stream: TextIO, *, first: bool = True) -> None:
        console = Console(file=stream)
        self._stream = stream
        self._bar = Progress(
            BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), console=console, transient=True
        )
        self._watched = console.is_terminal and first
        self._task = self._bar.add_task("starting", total=1.0)

    def __enter__(self) -> TrainingDisplay:
        if self._watched:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watched:
            self._bar.stop()

    def show(self, progress: TrainProgress) -> None:
        """The latest report; one with scores stays on the terminal."""
        if not self._watched:
            self._stream.write(f"{progress.fraction:6.1%}  {describe(progress)}\n")
            self._stream.flush()
            return
        self._bar.update(self._task, completed=progress.fraction, description=describe(progress))
        if progress.scores is not None:
            self._bar.console.print(f"{progress.fraction:6.1%}  {describe(progress)}")


def describe(progress: TrainProgress) -> str:
    """One line."""
    parts = [
        f"step {progress.step}",
        f"loss {progress.loss:.3f}",
        f"rate {progress.rate:.2f}",
        f"{progress.samples} samples",
        f"{progress.tokens_per_s:.0f} tokens/s",
    ]
    if 0 < progress.fraction < 1:
        left_s = progress.elapsed_s * (1 - progress.fraction) / progress.fraction
        parts.append(f"{timedelta(seconds=round(left_s))} left")
    if progress.bad_rows:
        parts.append(f"{progress.bad_rows} bad rows")
    parts += [f"{name} {value:.0%}" for name, value in (progress.scores or {}).items()]
    return "  ".join(parts)


def left_out(last: TrainProgress | None, bad_rows: BadRows | None, output: Path) -> Iterator[str]:
    """What of the data was not trained on, for the end of a run."""
    if last is not None and last.dropped_rows:
        yield f"{last.dropped_rows} rows were longer than any batch and left out"
    if bad_rows is not None and bad_rows.count:
        yield f"{bad_rows.count} bad rows were left out; all are named in {output}.bad_rows.jsonl, the first are:"
        yield from (f"  {example}" for example in bad_rows.examples)
