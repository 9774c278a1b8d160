"""The report on a checkpoint, made without loading it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.config import EngineConfig
from engine.errors import CheckpointError
from engine.models.inspect import inspect_checkpoint
from tests.helpers.checkpoints import EOS, MASK, write_json, write_llada, write_sdar, write_tokenizer


def test_numbers_come_from_the_headers(tmp_path: Path) -> None:
    report = inspect_checkpoint(write_sdar(tmp_path, dtype=torch.bfloat16))

    parameters = sum(tensor.numel() for tensor in load_file(tmp_path / "model.safetensors").values())
    assert report.supported
    assert (report.architecture, report.family) == ("SDARForCausalLM", "SDAR")
    assert report.parameters == parameters
    assert report.parameters_by_dtype == {"BF16": parameters}
    assert (report.stored_bytes, report.float32_bytes, report.num_files) == (2 * parameters, 4 * parameters, 1)
    assert report.kv_bytes_per_1k == 1000 * 2 * 2 * 2 * 16 * 4  # K and V, layers, K/V heads, head dimension, bytes
    assert "block" in report.cache_policies
    assert "dual" not in report.cache_policies
    assert report.default_strategy == "low_confidence_dynamic + block"
    assert not report.has_tokenizer


def test_values_are_shown_with_their_sources(tmp_path: Path) -> None:
    report = inspect_checkpoint(write_tokenizer(write_llada(tmp_path)), EngineConfig(block_length=16))

    assert report.facts["mask_token_id"] == (str(MASK), "config.json: mask_token_id")
    assert report.facts["stop_token_ids"] == (str(EOS), "config.json: eos_token_id")
    assert report.facts["block_length"] == ("16", "option block_length")
    assert {"prefix", "dual"} <= set(report.cache_policies)
    assert report.has_tokenizer
    text = report.to_text()
    assert "option block_length" in text
    assert "LLaDAModelLM" in text


def test_what_is_not_supported_is_still_counted(tmp_path: Path) -> None:
    report = inspect_checkpoint(write_sdar(tmp_path, architectures=["Qwen3ForCausalLM"]))

    assert not report.supported
    assert report.problem is not None
    assert "Qwen3ForCausalLM" in report.problem
    assert report.parameters > 0
    assert "Qwen3ForCausalLM" in report.to_text()


def test_a_wrong_tensor_is_found_without_loading(tmp_path: Path) -> None:
    folder = write_sdar(tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, "head_dim": 8})

    report = inspect_checkpoint(folder)

    assert report.problem is not None
    assert "self_attn.q_proj.weight has shape [64, 32], config.json implies [32, 32]" in report.problem
    assert "implies [32, 32]" in " ".join(report.to_text(width=300).split())


def test_damaged_weights_are_a_problem_of_the_report(tmp_path: Path) -> None:
    (write_llada(tmp_path) / "model.safetensors").write_bytes(b"")

    report = inspect_checkpoint(tmp_path)

    assert report.problem is not None
    assert "damaged" in report.problem
    assert report.parameters == 0


def test_a_report_is_json(tmp_path: Path) -> None:
    report = inspect_checkpoint(write_llada(tmp_path))

    data = json.loads(json.dumps(report.to_dict()))

    assert data["supported"] is True
    assert data["facts"]["block_length"] == {"value": "32", "source": "default of LLaDA"}


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        inspect_checkpoint(tmp_path / "nowhere")
