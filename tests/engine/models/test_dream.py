"""Dream against recorded forwards of the published network."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from engine.config import EngineConfig
from engine.models.checkpoint import open_checkpoint
from tests.helpers.forwards import GOLDENS, forward, load_checkpoint

FOLDER = GOLDENS / "fastdllm" / "checkpoints" / "dream_a"


def test_raw_logits_are_not_shifted() -> None:
    golden = load_file(FOLDER / "forward.safetensors")

    logits = forward(load_checkpoint(FOLDER), golden["input_ids"]).logits

    torch.testing.assert_close(logits, golden["logits"], atol=2e-4, rtol=0)


def test_biases_of_queries_keys_and_values_only() -> None:
    model = load_checkpoint(FOLDER)

    assert {name.removeprefix("layers.0.") for name, _ in model.named_parameters() if name.endswith("bias")} == {
        "self_attn.qkv_proj.bias",
        "layers.1.self_attn.qkv_proj.bias",
    }


def test_the_config_says_it_all() -> None:
    spec = open_checkpoint(FOLDER).spec

    assert (spec.attention, spec.logit_shift, spec.block_length) == ("bidirectional", 1, 32)
    assert (spec.mask_token_id, spec.stop_token_ids) == (290, {291})
    assert open_checkpoint(FOLDER, EngineConfig(block_length=8)).spec.block_length == 8
