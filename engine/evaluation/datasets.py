"""Sets of questions: held-out ones of the built-in tasks, or a user's own JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from engine.errors import ConfigError
from engine.evaluation.tasks.sample import Sample
from engine.evaluation.tasks.table import TASKS, held_out_samples

DEFAULT_KIND = "default"


def held_out_set(kinds: Sequence[str] | None = None, per_kind: int = 100, seed: int = 0) -> list[Sample]:
    """Held-out prompts of the given kinds (None: all), at most ``per_kind`` of each; the same for the same seed."""
    return [sample for kind in kinds or TASKS for sample in held_out_samples(kind, per_kind, seed)]


def read_jsonl(path: Path) -> list[Sample]:
    """Lines ``{"prompt": ..., "answer": ..., "kind": ...}``; ``kind`` may be left out. ConfigError names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The data set {path} cannot be read: {error}.", "data") from error
    samples = [_sample(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not samples:
        raise ConfigError(f"The data set {path} has no lines.", "data")
    return samples


def _sample(line: str, place: str) -> Sample:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place} is not JSON: {error.msg}.", "data") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{place} must be an object with prompt and answer.", "data")
    unknown = sorted(record.keys() - {"prompt", "answer", "kind"})
    if unknown:
        raise ConfigError(f"{place} has the unknown field {unknown[0]!r}; use prompt, answer and kind.", unknown[0])
    for field in ("prompt", "answer"):
        if not isinstance(record.get(field), str) or not record[field].strip():
            raise ConfigError(f"{place} needs a text in {field!r}.", field)
    kind = record.get("kind", DEFAULT_KIND)
    if not isinstance(kind, str):
        raise ConfigError(f"{place} needs a text in 'kind'.", "kind")
    return Sample(kind, record["prompt"], record["answer"])
