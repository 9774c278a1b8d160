"""Forwards of both families against recorded logits of the reference implementations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.attention.dense import DenseAttention
from engine.models.llada import LLaDAModel
from engine.models.sdar import SDARModel
from engine.models.spec import DiffusionLM, ModelSpec

GOLDENS = Path(__file__).parents[2] / "goldens"


def llada_spec(config: dict[str, object]) -> ModelSpec:
    values: dict[str, int] = {key: value for key, value in config.items() if isinstance(value, int)}
    return ModelSpec(
        architecture="LLaDAModelLM",
        attention="bidirectional",
        vocab_size=values.get("embedding_size") or values["vocab_size"],
        hidden_size=values["d_model"],
        intermediate_size=values["mlp_hidden_size"],
        num_layers=values["n_layers"],
        num_heads=values["n_heads"],
        num_kv_heads=values.get("n_kv_heads") or values["n_heads"],
        head_dim=values["d_model"] // values["n_heads"],
        max_position_embeddings=values["max_sequence_length"],
        rope_theta=float(str(config["rope_theta"])),
        rms_norm_eps=float(str(config["rms_norm_eps"])),
        tie_word_embeddings=bool(config["weight_tying"]),
        attention_bias=False,
        mask_token_id=values["mask_token_id"],
        stop_token_ids=frozenset({values["eos_token_id"]}),
        block_length=32,
    )


def sdar_spec(config: dict[str, object]) -> ModelSpec:
    values: dict[str, int] = {key: value for key, value in config.items() if isinstance(value, int)}
    return ModelSpec(
        architecture="SDARForCausalLM",
        attention="block_causal",
        vocab_size=values["vocab_size"],
        hidden_size=values["hidden_size"],
        intermediate_size=values["intermediate_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        num_kv_heads=values["num_key_value_heads"],
        head_dim=values["head_dim"],
        max_position_embeddings=values["max_position_embeddings"],
        rope_theta=float(str(config["rope_theta"])),
        rms_norm_eps=float(str(config["rms_norm_eps"])),
        tie_word_embeddings=bool(config["tie_word_embeddings"]),
        attention_bias=bool(config["attention_bias"]),
        mask_token_id=290,
        stop_token_ids=frozenset({285, 283}),
        block_length=values.get("block_size", 4),
    )


def fill(model: DiffusionLM, folder: Path) -> None:
    """Load every tensor of the checkpoint and require that names and shapes match exactly."""
    stored: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        if path.name.startswith("model"):
            stored |= load_file(path)
    parameters = dict(model.named_parameters())
    for tensor in model.checkpoint_tensors():
        parameters[tensor.parameter].data[tensor.start : tensor.end] = stored.pop(tensor.name).float()
    assert not stored


def logits_of(model: DiffusionLM, ids_BN: Tensor, mask: Tensor | None) -> Tensor:
    batch, length = ids_BN.shape
    with torch.no_grad():
        hidden = model(
            model.embed(ids_BN.flatten()), torch.arange(length).repeat(batch), DenseAttention(batch, length, mask)
        )
        return model.compute_logits(hidden).unflatten(0, (batch, length))


LLADA = ["fastdllm/checkpoints/llada_a", "fastdllm/checkpoints/llada_b", "dinfer_e2e/llada_tiny"]


@pytest.mark.parametrize("name", LLADA)
def test_llada_matches_the_reference_forward(name: str) -> None:
    folder = GOLDENS / name
    model = LLaDAModel(llada_spec(json.loads((folder / "config.json").read_text())))
    fill(model, folder)
    golden = load_file(folder / "forward.safetensors")
    torch.testing.assert_close(logits_of(model, golden["input_ids"].long(), None), golden["logits"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ["dense_hd16", "dense_tied", "dense_bf16_sharded"])
def test_sdar_matches_the_reference_block_causal_forward(name: str) -> None:
    folder = GOLDENS / "sdar" / "models" / name
    model = SDARModel(sdar_spec(json.loads((folder / "config.json").read_text())))
    fill(model, folder)
    cases = sorted((GOLDENS / "sdar" / "cases").glob(f"{name}-*.json"))
    assert cases
    for case in cases:
        block = json.loads(case.read_text())["block_length"]
        golden = load_file(case.with_suffix(".safetensors"))
        blocks = torch.arange(len(golden["ids"])) // block
        actual = logits_of(model, golden["ids"].long()[None], blocks[:, None] >= blocks[None, :])[0]
        torch.testing.assert_close(actual, golden["logits"], atol=1e-3, rtol=0)
