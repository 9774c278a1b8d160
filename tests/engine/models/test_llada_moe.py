"""LLaDA-MoE against a recorded forward of the reference implementation."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.layers.moe import SparseMoE
from engine.models.llada_moe import LLaDAMoEModel
from engine.models.transformer import TransformerLayer
from tests.helpers.forwards import GOLDENS, forward, load_checkpoint

FOLDER = GOLDENS / "dinfer_e2e" / "llada_moe_tiny"


@pytest.fixture(scope="module")
def model() -> LLaDAMoEModel:
    model = load_checkpoint(FOLDER, mask_token_id=127)
    assert isinstance(model, LLaDAMoEModel)
    return model


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(FOLDER / "forward.safetensors")


def test_logits_hidden_states_keys_and_values(model: LLaDAMoEModel, golden: dict[str, Tensor]) -> None:
    actual = forward(model, golden["input_ids"])

    torch.testing.assert_close(actual.logits, golden["logits"], atol=2e-4, rtol=0)
    torch.testing.assert_close(actual.hidden, golden["hidden.3"], atol=5e-5, rtol=0)
    for layer in range(3):
        torch.testing.assert_close(actual.keys[layer], golden[f"k.{layer}"], atol=5e-5, rtol=0)
        torch.testing.assert_close(actual.values[layer], golden[f"v.{layer}"], atol=5e-5, rtol=0)


def test_output_of_the_mixture(model: LLaDAMoEModel, golden: dict[str, Tensor]) -> None:
    layer = model.layers[1]
    assert isinstance(layer, TransformerLayer)
    assert isinstance(layer.mlp, SparseMoE)

    torch.testing.assert_close(layer.mlp(golden["moe1.x"]), golden["moe1.out"], atol=1e-5, rtol=0)
