"""Recognising folders of recordings by what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of recordings of one kind."""

    kind: str
    path: Path


def find_folders(path: Path) -> list[Folder]:
    """The recordings at ``path`` or, where it is only a parent, below it. Empty when there are none."""
    kind = recognise(path)
    if kind is not None:
        return [Folder(kind, path)]
    return [folder for child in _children(path) for folder in find_folders(child)]


def unknown_folders(path: Path) -> list[Path]:
    """Children of a parent folder that hold nothing of a known kind."""
    if recognise(path) is not None:
        return []
    return [child for child in _children(path) if not find_folders(child)]


def recognise(path: Path) -> str | None:
    """The kind of recording that lies directly in ``path``, or None."""
    if (path / "cases.json").is_file() and (path / "config.json").is_file():
        return "dinfer_e2e"
    sample = _first_json(sorted((path / "cases").glob("*.json")))
    if {"function", "checkpoint", "expected"} <= sample.keys():
        return "fastdllm"
    if {"runs", "checkpoint", "denoising_steps"} <= sample.keys():
        return "sdar"
    if decoder_files(path):
        return "dinfer_decoders"
    return None


def decoder_files(path: Path) -> list[Path]:
    """JSON files in ``path`` that hold recorded calls of a decoder, each with its tensors beside it."""
    return [
        file
        for file in sorted(path.glob("*.json"))
        if file.with_suffix(".safetensors").is_file()
        and {"decoder", "vocab_size", "cases"} <= _first_json([file]).keys()
    ]


def _children(path: Path) -> Iterator[Path]:
    yield from (child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith("."))


def _first_json(files: Sequence[Path]) -> dict[str, Any]:
    """The first of the files that holds a JSON object; a damaged one is reported when its cases are read."""
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(content, dict):
            return content
    return {}
