"""The block-diffusion loss against a recorded step of SDAR's own training code: mask, loss and gradients."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from engine.config import EngineConfig
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import load_model
from engine.training.batches import Batch
from engine.training.losses import weighted_cross_entropy
from engine.training.network import batch_loss
from engine.training.noise import attention_mask

GOLDENS = Path(__file__).parents[2] / "goldens" / "sdar"


def test_weights_of_zero_do_not_count() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([1, 2, 3])
    loss = weighted_cross_entropy(logits, targets, torch.tensor([2.0, 0.0, 1.0]))
    ce = -logits.log_softmax(-1)
    torch.testing.assert_close(loss, (2 * ce[0, 1] + ce[2, 3]) / 3)


def test_one_step_equals_the_recorded_one() -> None:
    facts = json.loads((GOLDENS / "train" / "single_b4.json").read_text())
    golden = load_file(GOLDENS / "train" / "single_b4.safetensors")
    length = golden["input_ids"].shape[1]
    positions = torch.arange(length).repeat(2)
    noised = torch.arange(2 * length) < length
    mask = attention_mask((positions // facts["block_size"])[None], noised[None])
    assert torch.equal(mask[0, 0], golden["mask_2n"][0].bool())

    path = GOLDENS / facts["checkpoint"]
    spec = open_checkpoint(path, EngineConfig(device="cpu")).spec
    model = load_model(path, spec, torch.float32, "cpu").requires_grad_()
    masked = golden["masked"][0].bool().nonzero()[:, 0]
    weights = 1 / golden["p_of_masked"]
    batch = Batch(
        tokens_RN=torch.cat([golden["noisy_ids"], golden["input_ids"]], dim=1),
        positions_RN=positions[None],
        mask_R1NN=mask,
        indices_M=masked,
        targets_M=golden["input_ids"][0, masked],
        weights_M=weights,
    )
    loss = batch_loss(model, batch, bfloat16=False) * weights.sum() / facts["answer_len"]
    loss.backward()
    torch.testing.assert_close(loss.item(), facts["loss"], atol=1e-3, rtol=0)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    places = {tensor.name: tensor.parameter for tensor in model.checkpoint_tensors()}
    for name, expected in (
        ("lm_head.weight", golden["grad_lm_head"]),
        ("model.layers.0.self_attn.q_proj.weight", golden["grad_q0"]),
    ):
        gradient = gradients[places[name]]
        assert gradient is not None
        torch.testing.assert_close(gradient[:8], expected, atol=1e-3, rtol=1e-3)
