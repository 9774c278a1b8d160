from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.bench.goldens.folders import find_folders, recognise, unknown_folders

FASTDLLM = {"function": "llada.generate", "checkpoint": "a", "expected": {}}
SDAR = {"runs": [], "checkpoint": "models/a", "denoising_steps": 4}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("kind", "case"), [("fastdllm", FASTDLLM), ("sdar", SDAR)])
def test_cases_are_told_apart_by_their_fields(tmp_path: Path, kind: str, case: object) -> None:
    write(tmp_path / "cases" / "any-name.json", case)
    assert recognise(tmp_path) == kind


def test_damaged_first_file_does_not_hide_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "cases" / "b.json", FASTDLLM)
    (tmp_path / "cases" / "a.json").write_text("{")
    assert recognise(tmp_path) == "fastdllm"


def test_decoder_recordings_need_their_tensors(tmp_path: Path) -> None:
    write(tmp_path / "threshold.json", {"decoder": "threshold", "vocab_size": 48, "cases": []})
    assert recognise(tmp_path) is None
    (tmp_path / "threshold.safetensors").touch()
    assert recognise(tmp_path) == "dinfer_decoders"


def test_parent_folders_are_searched(tmp_path: Path) -> None:
    write(tmp_path / "x" / "tiny" / "cases.json", {})
    write(tmp_path / "x" / "tiny" / "config.json", {})
    write(tmp_path / "y" / "cases" / "a.json", SDAR)
    write(tmp_path / "z" / "notes.json", {})
    assert [(folder.kind, folder.path) for folder in find_folders(tmp_path)] == [
        ("dinfer_e2e", tmp_path / "x" / "tiny"),
        ("sdar", tmp_path / "y"),
    ]
    assert unknown_folders(tmp_path) == [tmp_path / "z"]
