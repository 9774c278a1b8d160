"""LLaDA2 against recorded forwards of the reference implementation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.layers.moe import SparseMoE
from engine.layers.routing import BlockRouting
from engine.models.llada2 import LLaDA2Model
from engine.models.transformer import TransformerLayer
from tests.helpers.checkpoints import write_json
from tests.helpers.forwards import GOLDENS, forward, load_checkpoint

FOLDER = GOLDENS / "dinfer_e2e" / "llada2_tiny"


@pytest.fixture(scope="module")
def model() -> LLaDA2Model:
    model = load_checkpoint(FOLDER, mask_token_id=127)
    assert isinstance(model, LLaDA2Model)
    return model


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(FOLDER / "forward.safetensors")


@pytest.fixture(scope="module")
def mixture(model: LLaDA2Model) -> SparseMoE:
    layer = model.layers[1]
    assert isinstance(layer, TransformerLayer)
    assert isinstance(layer.mlp, SparseMoE)
    return layer.mlp


def test_logits_hidden_states_keys_and_values(model: LLaDA2Model, golden: dict[str, Tensor]) -> None:
    actual = forward(model, golden["input_ids"])

    torch.testing.assert_close(actual.logits, golden["logits"], atol=2e-4, rtol=0)
    torch.testing.assert_close(actual.hidden, golden["hidden.3"], atol=5e-5, rtol=0)
    for layer in range(3):
        torch.testing.assert_close(actual.keys[layer], golden[f"k.{layer}"], atol=5e-5, rtol=0)
        torch.testing.assert_close(actual.values[layer], golden[f"v.{layer}"], atol=5e-5, rtol=0)


def test_block_causal_logits(model: LLaDA2Model, golden: dict[str, Tensor]) -> None:
    logits = forward(model, golden["input_ids"], block_length=8).logits

    torch.testing.assert_close(logits, golden["logits_block_causal_8"], atol=2e-4, rtol=0)


def test_the_router_chooses_and_weighs_as_recorded(mixture: SparseMoE, golden: dict[str, Tensor]) -> None:
    routing = mixture.gate(golden["gate1.x"])

    experts, order = routing.experts_TK.sort(-1)
    expected, expected_order = golden["gate1.topk_idx"].sort(-1)
    assert torch.equal(experts, expected)
    weights, expected_weights = routing.weights_TK.gather(-1, order), golden["gate1.topk_weight"]
    torch.testing.assert_close(weights, expected_weights.gather(-1, expected_order), atol=1e-6, rtol=0)


def test_output_of_the_mixture(mixture: SparseMoE, golden: dict[str, Tensor]) -> None:
    torch.testing.assert_close(mixture(golden["gate1.x"]), golden["moe1.out"], atol=1e-5, rtol=0)


def test_the_first_layer_is_dense(model: LLaDA2Model) -> None:
    assert [isinstance(layer.mlp, SparseMoE) for layer in model.layers if isinstance(layer, TransformerLayer)] == [
        False,
        True,
        True,
    ]


def test_block_routing_of_all_experts_is_plain_routing_without_groups(tmp_path: Path) -> None:
    plain = with_config(tmp_path / "plain", n_group=1, topk_group=1)
    all_admitted = with_config(tmp_path / "all", expert_capacity=16)
    few_admitted = with_config(tmp_path / "few", expert_capacity=5)
    ids = load_file(FOLDER / "forward.safetensors")["input_ids"]

    expected = forward(load_checkpoint(plain, mask_token_id=127), ids, block_length=8).logits
    actual = forward(load_checkpoint(all_admitted, mask_token_id=127), ids, block_length=8).logits
    limited = forward(load_checkpoint(few_admitted, mask_token_id=127), ids, block_length=8).logits

    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert not torch.allclose(limited, expected, atol=1e-2)


def test_block_routing_depends_on_the_tokens_of_the_block_alone(tmp_path: Path) -> None:
    model = load_checkpoint(with_config(tmp_path, expert_capacity=5), mask_token_id=127)
    assert isinstance(model.spec.moe and model.spec.moe.routing, BlockRouting)
    ids = load_file(FOLDER / "forward.safetensors")["input_ids"]

    together = forward(model, ids, block_length=8).logits

    torch.testing.assert_close(forward(model, ids[1:], block_length=8).logits[0], together[1], atol=1e-4, rtol=0)
    prefix = forward(model, ids[:, :16], block_length=8).logits
    torch.testing.assert_close(prefix, together[:, :16], atol=1e-4, rtol=0)


def with_config(folder: Path, **changes: object) -> Path:
    """The recorded checkpoint under another config."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, **changes})
    return folder
