"""The memory that is said beforehand, against what is there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.models.registry import model_family
from engine.training.footprint import Footprint, activation_bytes, footprint, saved_bytes
from engine.training.job import Optimisation
from engine.training.optim import Optimiser
from engine.training.zero import ZeroSettings
from tests.engine.training.tiny_job import ADAMW, MUON, SPEC, tiny_job

QWEN3_8B = replace(
    SPEC,
    hidden_size=4096,
    intermediate_size=12288,
    num_layers=36,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    vocab_size=151936,
)


@pytest.mark.slow
@pytest.mark.parametrize("optimisation", [MUON, ADAMW], ids=["muon", "adamw"])
def test_weights_gradients_and_optimiser_are_exact(optimisation: Optimisation) -> None:
    job = tiny_job(1, optimisation)
    optimiser = Optimiser(job.model, optimisation)
    for parameter in job.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    need = footprint(job, None, 1, activations=0)
    assert need.weights == sum(parameter.nbytes for parameter in job.model.parameters())
    assert need.gradients == sum(p.grad.nbytes for p in job.model.parameters() if p.grad is not None)
    optimiser.step(1.0)
    assert need.optimiser == sum(t.nbytes for name, t in optimiser.tensors().items() if not name.endswith(".step"))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.slow
def test_activations_without_a_forward_are_those_of_a_real_forward(autocast: bool) -> None:
    job = tiny_job(1)
    counted = activation_bytes(job, held_bfloat16=False, autocast=autocast, fused_attention=False)
    assert counted == saved_bytes(job.model, 4, 48, autocast, fused_attention=False)
    scores = 4 * 2 * 48 * 48 * 4  # rows, heads, queries, keys, float32: kept once per layer at least
    fused = activation_bytes(job, held_bfloat16=False, autocast=autocast, fused_attention=True)
    assert counted - fused > 0.8 * SPEC.num_layers * scores


@pytest.mark.slow
def test_a_large_network_is_planned_without_its_weights() -> None:
    """The published arithmetic of ZeRO: 16 bytes per parameter in all, divided as far as the stage goes."""
    with torch.device("meta"):
        model = model_family(QWEN3_8B.architecture).model_class()(QWEN3_8B)
    job = replace(tiny_job(1), model=model, optimisation=ADAMW, tokens_per_step=2048, row_lengths=(1024,))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == 8_190_735_360
    plans = [footprint(job, ZeroSettings(stage, bfloat16=True), 8, 0) for stage in range(4)]
    assert plans[0].total == 16 * total
    assert plans[2] == Footprint(2 * total, 2 * total // 8, 12 * total // 8, 0)
    assert plans[3].total == pytest.approx(16 * total / 8)
    kept = activation_bytes(job, held_bfloat16=True, autocast=False, fused_attention=True)
    assert 10 * 2**30 < kept < 40 * 2**30
