"""Recorded forwards: what equals, what differs, and what is not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from engine.bench.goldens.forwards import ForwardCase, forward_cases
from engine.bench.goldens.results import NotSupportedError

GOLDENS = Path(__file__).parents[2] / "goldens"
LLADA = GOLDENS / "fastdllm" / "checkpoints" / "llada_a"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LLADA, tmp_path / "llada_a"))


@pytest.mark.parametrize("kind", ["fastdllm/checkpoints", "dinfer_e2e"])
def test_every_recorded_forward_in_the_repository_is_reproduced(kind: str) -> None:
    cases = list(forward_cases(GOLDENS / kind, mask_token_id=127 if kind == "dinfer_e2e" else None))
    assert len(cases) >= 3
    assert {case.id: case.differences() for case in cases} == {case.id: [] for case in cases}


def test_other_weights_differ(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.transformer.ln_f.weight"] *= 1.01
    save_file(weights, folder / "model.safetensors")
    (difference,) = ForwardCase(folder, None).differences()
    assert difference.startswith("logits: differs by")


def test_a_recording_that_holds_nothing_is_no_success(folder: Path) -> None:
    ids = load_file(folder / "forward.safetensors")["input_ids"]
    save_file({"input_ids": ids}, folder / "forward.safetensors")
    assert ForwardCase(folder, None).differences() == ["the recording holds nothing that can be compared"]


def test_an_unknown_architecture_is_not_supported(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Unheard"]}))
    with pytest.raises(NotSupportedError, match="Unheard"):
        ForwardCase(folder, None).differences()
