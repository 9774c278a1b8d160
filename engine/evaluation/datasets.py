"""Sets of questions: held-out ones of the built-in tasks, or a file of the user's."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError
from engine.evaluation.formats.format import Format, Record
from engine.evaluation.formats.table import AUTO, PLAIN, format_named, recognise
from engine.evaluation.tasks.sample import Sample
from engine.evaluation.tasks.table import TASKS, held_out_samples

GZIP_SUFFIX = ".gz"


@dataclass(frozen=True, slots=True)
class DataSet:
    """Questions of one format, at least one; ``bad_rows`` says of each row that was left out where and why."""

    format: Format
    samples: tuple[Sample, ...]
    bad_rows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """``record`` is None where the row is no JSON object; ``fault`` says so."""

    place: str
    record: Record | None
    fault: str = ""


def held_out_set(kinds: Sequence[str] | None = None, per_kind: int = 100, seed: int = 0) -> list[Sample]:
    """Held-out prompts of the given kinds (None: all), at most ``per_kind`` of each; the same for the same seed."""
    return [sample for kind in kinds or TASKS for sample in held_out_samples(kind, per_kind, seed)]


def read_data(path: Path, format_name: str = AUTO) -> DataSet:
    """Read JSON lines, or one JSON list, packed with gzip where the name ends so.

    With ``auto`` the first row that has some format's fields decides. Rows that do not fit are left out and named;
    ConfigError when the file can't be read or no row is good.
    """
    rows = list(_rows(path))
    records = [row.record for row in rows if row.record is not None]
    wanted = None if format_name == AUTO else format_named(format_name)
    form = wanted or next((found for record in records if (found := recognise(record))), PLAIN)
    samples: list[Sample] = []
    bad: list[str] = []
    for row in rows:
        try:
            samples.append(_sample(form, row))
        except ConfigError as error:
            bad.append(f"{row.place} {error.message}")
    if not samples:
        reason = f"no good row: {bad[0]}" if bad else "no rows"
        raise ConfigError(f"The data set {path} has {reason}.", "data")
    return DataSet(form, tuple(samples), tuple(bad))


def read_jsonl(path: Path) -> list[Sample]:
    """The good rows of a file in whichever format."""
    return list(read_data(path).samples)


def _sample(form: Format, row: _Row) -> Sample:
    if row.record is None:
        raise ConfigError(row.fault, "data")
    return form.parse(row.record)


def _rows(path: Path) -> Iterator[_Row]:
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == GZIP_SUFFIX else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"The data set {path} cannot be read: {error}.", "data") from error
    if text.lstrip().startswith("["):
        yield from (_row(f"{path}, item {number}", item) for number, item in enumerate(_items(text, path), 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _line_row(f"{path}, line {number}", line)


def _items(text: str, path: Path) -> list[object]:
    try:
        items: list[object] = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"The data set {path} begins as a JSON list but is none: {error}.", "data") from error
    return items


def _line_row(place: str, line: str) -> _Row:
    try:
        return _row(place, json.loads(line))
    except (json.JSONDecodeError, RecursionError) as error:
        return _Row(place, None, f"is not JSON: {error}")


def _row(place: str, value: object) -> _Row:
    if isinstance(value, dict):
        return _Row(place, value)
    return _Row(place, None, "must be an object with fields such as prompt and answer")
