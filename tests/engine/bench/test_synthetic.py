"""A checkpoint with random experts can be loaded, and by ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine
from engine.bench.synthetic import synthesize_moe
from engine.errors import ConfigError
from engine.models.checkpoint import open_checkpoint
from engine.sampling_params import SamplingParams
from tests.helpers.engines import load

EMBEDDED = Path(engine.__file__).parent / "checkpoints" / "lacuna-tiny-llada"


def test_the_checkpoint_is_what_was_asked_for(tmp_path: Path) -> None:
    spec = synthesize_moe(tmp_path / "moe", EMBEDDED, num_experts=6)
    checkpoint = open_checkpoint(tmp_path / "moe")
    assert checkpoint.family.name == "LLaDA-MoE"
    assert checkpoint.spec.moe == spec.moe
    assert spec.moe is not None
    assert spec.moe.num_experts == 6
    model = load(tmp_path / "moe")
    (output,) = model.generate(["What is 2 + 3?"], SamplingParams(max_tokens=8, ignore_eos=True))
    assert len(output.token_ids) == 8


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigError, match="not empty"):
        synthesize_moe(tmp_path, EMBEDDED)
