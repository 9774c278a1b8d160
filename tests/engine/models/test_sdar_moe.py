"""SDAR-MoE against recorded runs, and where nothing is recorded against transformers' Qwen3-MoE."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from engine.layers.moe import SparseMoE
from engine.models.transformer import TransformerLayer
from tests.helpers.checkpoints import write_json
from tests.helpers.forwards import GOLDENS, forward, load_checkpoint

SDAR = GOLDENS / "sdar"
CASES = sorted(path.stem for path in (SDAR / "cases").glob("moe_*.json"))


@pytest.mark.parametrize("case", CASES)
def test_recorded_block_causal_logits(case: str) -> None:
    facts = json.loads((SDAR / "cases" / f"{case}.json").read_text(encoding="utf-8"))
    golden = load_file(SDAR / "cases" / f"{case}.safetensors")
    model = load_checkpoint(SDAR / facts["checkpoint"], mask_token_id=facts["mask_id"])

    logits = forward(model, golden["ids"][None], facts["block_length"]).logits[0]

    torch.testing.assert_close(logits, golden["logits"], atol=1e-3, rtol=0)


def test_dense_layers_and_unnormalised_weights_as_qwen3_has_them(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=6,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        norm_topk_prob=False,
        mlp_only_layers=[3],
        decoder_sparse_step=2,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        reference = Qwen3MoeForCausalLM(config).eval()
    reference.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "config.json", {**written, "architectures": ["SDARMoeForCausalLM"], "mask_token_id": 95})
    ids = torch.randint(90, (2, 12), generator=torch.Generator().manual_seed(0))
    block_N = torch.arange(12) // 4
    hidden_from = torch.where(block_N[:, None] >= block_N[None, :], 0.0, -torch.inf)

    model = load_checkpoint(tmp_path)
    with torch.inference_mode():
        expected = reference(ids, attention_mask=hidden_from.expand(2, 1, 12, 12)).logits

    layers = [layer for layer in model.layers if isinstance(layer, TransformerLayer)]
    assert [isinstance(layer.mlp, SparseMoE) for layer in layers] == [False, True, False, False]
    torch.testing.assert_close(forward(model, ids, block_length=4).logits, expected, atol=1e-4, rtol=0)
