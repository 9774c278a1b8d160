"""Losses, and SDAR's own training steps: mask, cross entropies, loss and gradients as recorded."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.config import EngineConfig
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import load_model
from engine.models.spec import DiffusionLM
from engine.training.batches import Batch, collate
from engine.training.block_diffusion import lay_out, pack
from engine.training.losses import weighted_cross_entropy
from engine.training.network import batch_loss, hidden_states
from engine.training.noise import Row

GOLDENS = Path(__file__).parents[2] / "goldens" / "sdar"
CASES = ("single_b4", "packed_b4_pad", "pretrain_b8", "ragged_b8_batch2")
IGNORED = -100


def test_weights_of_zero_do_not_count() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([1, 2, 3])
    loss = weighted_cross_entropy(logits, targets, torch.tensor([2.0, 0.0, 1.0]), 4.0)
    ce = -logits.log_softmax(-1)
    torch.testing.assert_close(loss, (2 * ce[0, 1] + ce[2, 3]) / 4)


def recorded_rows(facts: dict[str, Any], golden: dict[str, Tensor]) -> list[Row]:
    """The recorded samples and their noise, laid out by the trainer's own code."""
    masked_RN = golden["masked"].bool()
    probability_RN = torch.ones(masked_RN.shape).masked_scatter(masked_RN, golden["p_of_masked"]).numpy()
    rows = []
    for row, lengths in enumerate(facts["packed_lengths"]):
        ends = torch.tensor([0, *lengths]).cumsum(0).tolist()
        parts = [slice(start, end) for start, end in pairwise(ends)]
        rows.append(
            pack(
                [
                    lay_out(
                        golden["input_ids"][row, part].numpy(),
                        masked_RN[row, part].numpy(),
                        probability_RN[row, part],
                        int((golden["labels"][row, part] != IGNORED).sum()),
                        facts["block_size"],
                        facts["mask_id"],
                    )
                    for part in parts
                ]
            )
        )
    return rows


def recorded_batch(facts: dict[str, Any], golden: dict[str, Tensor]) -> Batch:
    return collate(recorded_rows(facts, golden), 2 * golden["input_ids"].shape[1], padding_id=0)


def load(name: str) -> tuple[dict[str, Any], dict[str, Tensor], DiffusionLM]:
    facts = json.loads((GOLDENS / "train" / f"{name}.json").read_text())
    path = GOLDENS / facts["checkpoint"]
    spec = open_checkpoint(path, EngineConfig(device="cpu", mask_token_id=facts["mask_id"])).spec
    model = load_model(path, spec, torch.float32, "cpu")
    return facts, load_file(GOLDENS / "train" / f"{name}.safetensors"), model.requires_grad_()


@pytest.mark.parametrize("name", CASES)
def test_a_step_equals_the_recorded_one(name: str) -> None:
    facts, golden, model = load(name)
    batch = recorded_batch(facts, golden)
    assert torch.equal(batch.mask_R1NN[:, 0], golden["mask_2n"].bool())

    hidden_TD = hidden_states(model, batch.tokens_RN, batch.positions_RN, batch.mask_R1NN)
    logits_MV = model.compute_logits(hidden_TD[batch.indices_M]).float()
    ce_M = torch.nn.functional.cross_entropy(logits_MV, batch.targets_M, reduction="none")
    torch.testing.assert_close(ce_M, golden["ce_of_masked"], atol=1e-3, rtol=0)

    loss = batch_loss(model, batch, bfloat16=False)
    loss.backward()
    assert batch.normaliser == facts["answer_len"]
    torch.testing.assert_close(loss.item(), facts["loss"], atol=1e-3, rtol=0)
    check_gradients(model, facts, golden)


def check_gradients(model: DiffusionLM, facts: dict[str, Any], golden: dict[str, Tensor]) -> None:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    places = {tensor.name: tensor for tensor in model.checkpoint_tensors()}
    parts = {name: places[name].view(gradients) for name in facts["grad_norms"] if name in places}
    assert parts.keys() == places.keys()
    for name, gradient in parts.items():
        torch.testing.assert_close(gradient.norm().item(), facts["grad_norms"][name], atol=1e-2, rtol=1e-3)
    head = "lm_head.weight" if "lm_head.weight" in places else "model.embed_tokens.weight"
    torch.testing.assert_close(parts[head][:8], golden["grad_lm_head"], atol=1e-3, rtol=1e-3)
    query = parts["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(query[:8], golden["grad_q0"], atol=1e-3, rtol=1e-3)
