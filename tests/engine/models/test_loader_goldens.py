"""Recorded checkpoints of both families through the whole path: JSON files, headers, weights, logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.attention.dense import DenseAttention
from engine.config import EngineConfig
from engine.models.checkpoint import open_checkpoint
from engine.models.inspect import inspect_checkpoint
from engine.models.loader import load_model
from engine.models.spec import DiffusionLM

GOLDENS = Path(__file__).parents[2] / "goldens"
LLADA = ("fastdllm/checkpoints/llada_a", "fastdllm/checkpoints/llada_b", "dinfer_e2e/llada_tiny")
SDAR = ("dense_hd16", "dense_tied", "dense_bf16_sharded")


def load(folder: Path, config: EngineConfig | None = None) -> DiffusionLM:
    return load_model(folder, open_checkpoint(folder, config).spec, torch.float32, "cpu")


def logits_of(model: DiffusionLM, ids_BN: Tensor, mask: Tensor | None = None) -> Tensor:
    batch, length = ids_BN.shape
    positions = torch.arange(length).repeat(batch)
    hidden = model(model.embed(ids_BN.flatten()), positions, DenseAttention(batch, length, mask))
    return model.compute_logits(hidden).unflatten(0, (batch, length))


@pytest.mark.parametrize("name", LLADA)
def test_llada(name: str) -> None:
    golden = load_file(GOLDENS / name / "forward.safetensors")

    logits = logits_of(load(GOLDENS / name), golden["input_ids"].long())

    torch.testing.assert_close(logits, golden["logits"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", SDAR)
def test_sdar(name: str) -> None:
    case = min((GOLDENS / "sdar/cases").glob(f"{name}-*.json"))
    facts, golden = json.loads(case.read_text(encoding="utf-8")), load_file(case.with_suffix(".safetensors"))
    model = load(GOLDENS / "sdar/models" / name, EngineConfig(mask_token_id=facts["mask_id"]))
    blocks_N = torch.arange(len(golden["ids"])) // facts["block_length"]

    logits = logits_of(model, golden["ids"].long()[None], blocks_N[:, None] >= blocks_N[None, :])[0]

    torch.testing.assert_close(logits, golden["logits"], atol=1e-3, rtol=0)


def test_the_published_vocabulary() -> None:
    report = inspect_checkpoint(GOLDENS / "fastdllm/checkpoints/llada_realvocab_a")

    assert report.supported
    assert report.facts["mask_token_id"].value == "126336"
    assert report.facts["stop_token_ids"].value == "126081"
    assert list(report.parameters_by_dtype) == ["BF16"]


def test_a_mask_that_only_the_operator_knows() -> None:
    folder = GOLDENS / "sdar/models/dense_tied"

    assert not inspect_checkpoint(folder).supported
    report = inspect_checkpoint(folder, EngineConfig(mask_token_id=290))
    assert report.supported
    assert report.facts["tied_head"] == ("yes", "lm_head.weight is not stored")
