"""A dense network becomes a mixture of experts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engine.errors import ConfigError
from engine.layers.moe import SparseMoE
from engine.layers.routing import SoftmaxRouting
from engine.models.llada_moe import LLaDAMoEModel
from engine.models.sdar import SDARModel
from engine.training.batches import Batch
from engine.training.data import SpecialIds
from engine.training.expert_split import fit_router, group_neurons, split_into_experts
from engine.training.families import FAMILIES
from engine.training.network import hidden_states, recipe_spec
from engine.training.presets import RECIPES, ExpertShape
from engine.training.recording import typical_batch

EMBEDDED = Path(__file__).parents[3] / "engine" / "checkpoints" / "lacuna-tiny-sdar"
EXPERTS, NEURONS = 4, 24


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.recording.SAMPLES", 3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))


def networks(tokenizer: Tokenizer, width: int, per_token: int) -> tuple[SDARModel, LLaDAMoEModel]:
    """A dense network with random weights, and an empty mixture."""
    shape = replace(RECIPES["tiny-llada-moe"], hidden_size=16, num_layers=2, num_heads=2)
    shape = replace(shape, experts=ExpertShape(EXPERTS, per_token, width))
    spec = recipe_spec(shape, FAMILIES["llada-moe"], SpecialIds.of(tokenizer))
    dense = SDARModel(replace(spec, moe=None, intermediate_size=NEURONS, attention="block_causal"))
    generator = torch.Generator().manual_seed(0)
    for parameter in dense.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return dense, LLaDAMoEModel(spec)


def hidden(model: SDARModel | LLaDAMoEModel, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return hidden_states(model, batch.tokens_RN, batch.positions_RN, batch.mask_R1NN)[batch.real_T]


@pytest.mark.parametrize("width", [NEURONS // EXPERTS, NEURONS // EXPERTS + 3])
def test_a_token_sent_to_all_experts_gets_what_the_dense_network_computes(width: int, tokenizer: Tokenizer) -> None:
    """But for the routing weights, which are only nearly alike; with equal weights it is the same."""
    dense, mixture = networks(tokenizer, width, per_token=EXPERTS)
    split_into_experts(dense, mixture, tokenizer)
    batch = typical_batch(tokenizer)
    expected = hidden(dense, batch)
    assert (hidden(mixture, batch) - expected).norm() < 0.2 * expected.norm()
    for layer in mixture.layers:
        assert isinstance(layer.mlp, SparseMoE)
        layer.mlp.gate.weight.data.zero_()
    torch.testing.assert_close(hidden(mixture, batch), expected, atol=1e-4, rtol=1e-4)


def test_experts_that_cannot_hold_the_neurons_are_refused(tokenizer: Tokenizer) -> None:
    dense, mixture = networks(tokenizer, NEURONS // EXPERTS - 1, per_token=2)
    with pytest.raises(ConfigError, match=f"{NEURONS // EXPERTS} wide"):
        split_into_experts(dense, mixture, tokenizer)


@settings(max_examples=25, deadline=None)
@given(neurons=st.integers(1, 30), groups=st.integers(1, 6), seed=st.integers(0, 99))
def test_every_neuron_gets_a_group_and_groups_are_equal(neurons: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    group_F = group_neurons(torch.randn(12, neurons, generator=generator), groups, generator)
    sizes = torch.bincount(group_F, minlength=groups)
    assert len(sizes) == groups
    assert sizes.max() - sizes.min() <= 1


def test_neurons_that_fire_together_are_grouped() -> None:
    topic_T = torch.arange(30) % 3
    topic_F = torch.arange(12) % 3
    contribution_TF = (topic_T[:, None] == topic_F[None, :]).float() + 0.01
    group_F = group_neurons(contribution_TF, 3, torch.Generator().manual_seed(0))
    assert all(len(set(group_F[topic_F == topic].tolist())) == 1 for topic in range(3))


def test_the_router_chooses_the_experts_that_contribute_most() -> None:
    generator = torch.Generator().manual_seed(0)
    x_TD = torch.randn(200, 8, generator=generator)
    contribution_TE = x_TD[:, :4] + 3.0
    weight_ED = fit_router(x_TD, contribution_TE)
    routing = SoftmaxRouting(experts_per_token=1).choose(x_TD @ weight_ED.T, None, None)
    assert (routing.experts_TK[:, 0] == contribution_TE.argmax(1)).float().mean() > 0.95
    assert (x_TD @ weight_ED.T).std().item() == pytest.approx(0.1, rel=1e-3)
