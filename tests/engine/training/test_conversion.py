"""Qwen3 folders opened as SDAR: the same network, the published layout, a mask token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.config import EngineConfig
from engine.errors import CheckpointError, UnsupportedModelError
from engine.llm_engine import LLMEngine
from engine.models.checkpoint import open_checkpoint
from engine.sampling_params import SamplingParams
from engine.training.checkpoint import save_checkpoint
from engine.training.conversion import convert
from engine.training.network import hidden_states
from engine.training.noise import attention_mask
from tests.engine.training.qwen3 import USED_IDS, save_qwen3, save_qwen3_moe

SAVERS: dict[str, tuple[Callable[..., Path], dict[str, object]]] = {
    "dense": (save_qwen3, {}),
    "tied": (save_qwen3, {"tie_word_embeddings": True}),
    "biases": (save_qwen3, {"attention_bias": True}),
    "moe": (save_qwen3_moe, {}),
    "some dense layers": (save_qwen3_moe, {"mlp_only_layers": [1], "norm_topk_prob": False}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("qwen3")
    return {name: save(root / name.replace(" ", "-"), **changes) for name, (save, changes) in SAVERS.items()}


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as shard:
            tensors |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - a file, not a mapping
    return tensors


@pytest.mark.parametrize("name", SAVERS)
def test_with_blocks_of_one_it_is_the_network_it_was(folders: dict[str, Path], name: str) -> None:
    """Clean tokens in blocks of 1 see what comes before them and themselves: causal attention."""
    tokens_RN = torch.randint(0, USED_IDS, (2, 12), generator=torch.Generator().manual_seed(0))
    positions_RN = torch.arange(12).expand(2, 12)
    causal = attention_mask(positions_RN, torch.zeros_like(tokens_RN, dtype=torch.bool))
    model = convert(folders[name], 1).model
    with torch.no_grad():
        logits = model.compute_logits(hidden_states(model, tokens_RN, positions_RN, causal))
        published = AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float32).eval()(tokens_RN).logits
    others = torch.arange(published.shape[-1]) != USED_IDS  # the mask's logit is new
    torch.testing.assert_close(logits.view(published.shape)[..., others], published[..., others], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["dense", "tied"])
def test_without_training_the_weights_stay_bit_for_bit(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    converted = convert(folders[name], 4)
    save_checkpoint(tmp_path / "sdar", converted.model, converted.files, {})
    before, after = stored_tensors(folders[name]), stored_tensors(tmp_path / "sdar")
    assert before.keys() == after.keys()
    for tensor, stored in before.items():
        rows = slice(0, USED_IDS) if tensor in ("model.embed_tokens.weight", "lm_head.weight") else slice(None)
        assert torch.equal(after[tensor][rows], stored[rows]), tensor
        assert after[tensor].dtype == stored.dtype


@pytest.mark.parametrize("name", ["tied", "moe"])
def test_the_engine_serves_what_was_converted(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    converted = convert(folders[name], 8)
    save_checkpoint(tmp_path / "sdar", converted.model, converted.files, {})
    engine = LLMEngine.from_pretrained(tmp_path / "sdar", EngineConfig(device="cpu"))
    (output,) = engine.generate(["abc"], SamplingParams(max_tokens=6))
    assert output.finish_reason in ("stop", "length")
    spec = open_checkpoint(tmp_path / "sdar").spec
    assert (spec.block_length, spec.mask_token_id) == (8, USED_IDS)


def test_the_config_keeps_what_it_says_and_names_the_mask(folders: dict[str, Path]) -> None:
    before = json.loads((folders["moe"] / "config.json").read_text())
    config = convert(folders["moe"], 16).files.config
    changed = {name: value for name, value in config.items() if before.get(name) != value}
    assert changed.pop("num_experts") == 4
    assert changed == {
        "architectures": ["SDARMoeForCausalLM"],
        "model_type": "sdar_moe",
        "block_size": 16,
        "mask_token_id": USED_IDS,
        "rope_theta": before["rope_parameters"]["rope_theta"],
    }
    assert before.keys() <= config.keys()


def test_an_sdar_gets_another_block_length_and_keeps_its_mask(folders: dict[str, Path], tmp_path: Path) -> None:
    first = convert(folders["dense"], 4)
    save_checkpoint(tmp_path / "b4", first.model, first.files, {})
    second = convert(tmp_path / "b4", 8)
    save_checkpoint(tmp_path / "b8", second.model, second.files, {})
    assert open_checkpoint(tmp_path / "b8").spec.block_length == 8
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        assert (tmp_path / "b4" / name).read_bytes() == (tmp_path / "b8" / name).read_bytes()
    assert "has already" in second.notes[0]


def test_samples_end_with_the_padding_token(folders: dict[str, Path]) -> None:
    assert convert(folders["dense"], 4).end == 256


def test_other_architectures_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(UnsupportedModelError, match=r"LlamaForCausalLM.*norm of queries and keys"):
        convert(tmp_path, 4)


def test_a_folder_without_tokenizer_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folders["dense"] / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        convert(tmp_path, 4)


@pytest.mark.parametrize("name", ["dense", "tied", "moe"])
def test_shapes_need_no_weights(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / file).write_bytes((folders[name] / file).read_bytes())
    whole, shapes = convert(folders[name], 4), convert(tmp_path, 4, shapes_only=True)
    assert shapes.model.spec == whole.model.spec
    expected = {each: parameter.shape for each, parameter in whole.model.named_parameters()}
    assert {each: parameter.shape for each, parameter in shapes.model.named_parameters()} == expected
    assert all(parameter.is_meta and parameter.requires_grad for parameter in shapes.model.parameters())
