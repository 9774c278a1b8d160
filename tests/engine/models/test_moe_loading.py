"""Expert tensors in and out: one by one as published, or fused as conversions leave them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.config import EngineConfig
from engine.errors import CheckpointError
from engine.models.checkpoint import open_checkpoint
from engine.models.inspect import inspect_checkpoint
from engine.models.loader import load_model, save_model
from engine.models.spec import DiffusionLM
from tests.helpers.forwards import GOLDENS

CHECKPOINTS = ("llada_moe_tiny", "llada2_tiny")
OPTIONS = EngineConfig(mask_token_id=127)
NUM_EXPERTS = {"llada_moe_tiny": 8, "llada2_tiny": 16}


def load(folder: Path, dtype: torch.dtype = torch.float32) -> DiffusionLM:
    return load_model(folder, open_checkpoint(folder, OPTIONS).spec, dtype, "cpu")


def rewritten(name: str, folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """A copy of a recorded checkpoint with other tensors."""
    shutil.copytree(GOLDENS / "dinfer_e2e" / name, folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def fuse(tensors: dict[str, Tensor], layer: int, num_experts: int, *, keep: bool = False) -> None:
    """Stack the experts of a layer as ``w1`` and ``w2``."""
    prefix = f"model.layers.{layer}.mlp."
    take = tensors.get if keep else tensors.pop

    def stacked(projection: str) -> Tensor:
        names = (f"{prefix}experts.{expert}.{projection}.weight" for expert in range(num_experts))
        return torch.stack([tensor for name in names if (tensor := take(name)) is not None])

    tensors[prefix + "w1"] = torch.cat((stacked("gate_proj"), stacked("up_proj")), dim=1)
    tensors[prefix + "w2"] = stacked("down_proj")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_fused_experts_are_the_same_experts(name: str, tmp_path: Path) -> None:
    def fuse_all(tensors: dict[str, Tensor]) -> None:
        for layer in (1, 2):
            fuse(tensors, layer, NUM_EXPERTS[name])

    expected = dict(load(GOLDENS / "dinfer_e2e" / name).named_parameters())
    actual = dict(load(rewritten(name, tmp_path, fuse_all)).named_parameters())

    assert actual.keys() == expected.keys()
    for parameter, tensor in expected.items():
        torch.testing.assert_close(actual[parameter], tensor, rtol=0, atol=0)


def test_experts_stored_twice_are_refused(tmp_path: Path) -> None:
    folder = rewritten("llada_moe_tiny", tmp_path, lambda tensors: fuse(tensors, 1, 8, keep=True))

    with pytest.raises(CheckpointError, match=r"holds 24 tensors: model\.layers\.1\.mlp\.experts\.0"):
        load(folder)


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    missing = "model.layers.2.mlp.experts.3.up_proj.weight"

    with pytest.raises(CheckpointError, match="lacks 1 tensor") as caught:
        load(rewritten("llada2_tiny", tmp_path, lambda tensors: tensors.pop(missing)))

    assert caught.value.param == missing


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_routers_stay_in_float32(name: str, tmp_path: Path) -> None:
    stored = load_file(GOLDENS / "dinfer_e2e" / name / "model.safetensors")

    model = load(GOLDENS / "dinfer_e2e" / name, torch.bfloat16)
    saved = load_file(save_model(model, tmp_path, torch.bfloat16))

    assert saved.keys() == stored.keys()
    exact = {tensor for tensor in saved if "mlp.gate." in tensor}
    assert {tensor for tensor, value in saved.items() if value.dtype == torch.float32} == exact
    for tensor, value in saved.items():
        torch.testing.assert_close(value, stored[tensor].to(value.dtype), rtol=0, atol=0)


def test_the_report_tells_of_experts() -> None:
    report = inspect_checkpoint(GOLDENS / "dinfer_e2e" / "llada2_tiny", OPTIONS)

    assert report.supported
    assert report.facts["experts"].value == "4 of 16 per token, 32 wide; 32 shared; 1 of 3 layers dense"
    idle = 2 * 12 * 3 * 64 * 32
    assert report.facts["active_parameters"].value == f"{(report.parameters - idle) / 1000:.2f} k"
    assert "experts" in report.to_text()
    dense = inspect_checkpoint(GOLDENS / "fastdllm" / "checkpoints" / "dream_a")
    assert not {"experts", "active_parameters"} & dense.facts.keys()
