"""Checkpoints in the published layouts: written atomically, read back to go on training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from engine.errors import ConfigError
from engine.models.llada import LLaDAModel
from engine.models.llada_moe import LLaDAMoEModel
from engine.models.loader import save_model
from engine.models.sdar import SDARModel
from engine.models.spec import DiffusionLM, ModelSpec
from engine.training.expert_split import split_into_experts
from engine.training.families import Family
from engine.training.folding import fold_into_llada
from engine.training.job import CheckpointFiles, JsonValue
from engine.training.storage import replacing
from engine.training.tokenizer import save_tokenizer

DENSE_BEGINNINGS = ("SDARForCausalLM", "Qwen3ForCausalLM")
"""One network under two names; what was trained with it carries over to LLaDA and LLaDA-MoE."""

SMALL_FILES = 2**18
"""Bytes of a checkpoint beside its weights, about."""


def files_of(model: DiffusionLM, family: Family, tokenizer: Tokenizer) -> CheckpointFiles:
    """The files of an embedded model."""
    stop_ids = sorted(model.spec.stop_token_ids)
    max_length = model.spec.max_position_embeddings
    return CheckpointFiles(
        config=family.config(model.spec),
        generation_config={"eos_token_id": stop_ids, "pad_token_id": stop_ids[0]},
        write_tokenizer=lambda folder: save_tokenizer(tokenizer, folder, max_length),
    )


def save_checkpoint(folder: Path, model: DiffusionLM, files: CheckpointFiles, record: Mapping[str, JsonValue]) -> None:
    """Write config, weights, tokenizer and ``record`` (``training.json``). ``folder`` changes at once, or not at all:
    ConfigError where the disk is full."""
    with replacing(folder, checkpoint_bytes(model, files)) as staging:
        save_model(model, staging, files.dtype)
        _write_json(staging / "config.json", files.config)
        _write_json(staging / "generation_config.json", files.generation_config)
        _write_json(staging / "training.json", record)
        files.write_tokenizer(staging)


def checkpoint_bytes(model: DiffusionLM, files: CheckpointFiles) -> int:
    """Size of a checkpoint's weights on disk, and some room for the other files."""
    return sum(parameter.numel() for parameter in model.parameters()) * files.dtype.itemsize + SMALL_FILES


def start_from(folder: Path, model: DiffusionLM, tokenizer: Tokenizer) -> None:
    """Fill ``model`` from a checkpoint of its own family, or LLaDA and LLaDA-MoE from an SDAR or a Qwen3 network of
    the same width and depth."""
    config = json.loads((folder / "config.json").read_text())
    architecture = config["architectures"][0]
    if architecture == model.spec.architecture:
        load_weights(model, folder)
    elif architecture in DENSE_BEGINNINGS and isinstance(model, LLaDAModel):
        fold_into_llada(_dense(folder, model.spec, model.spec.intermediate_size), model, tokenizer)
    elif architecture in DENSE_BEGINNINGS and isinstance(model, LLaDAMoEModel):
        split_into_experts(_dense(folder, model.spec, config["intermediate_size"]), model, tokenizer)
    else:
        message = f"A {model.spec.architecture} network cannot start from {folder}, which holds a {architecture}."
        raise ConfigError(message, "initial")


def _dense(folder: Path, spec: ModelSpec, intermediate_size: int) -> SDARModel:
    shape = replace(spec, attention="block_causal", moe=None, intermediate_size=intermediate_size)
    source = SDARModel(shape)
    load_weights(source, folder)
    return source


@torch.no_grad()
def load_weights(model: DiffusionLM, folder: Path) -> None:
    """Fill ``model`` from the checkpoint's single shard; ConfigError when the shapes differ."""
    stored = load_file(folder / "model.safetensors")
    parameters = dict(model.named_parameters())
    for tensor in model.checkpoint_tensors():
        target = tensor.view(parameters)
        if tensor.name not in stored or stored[tensor.name].shape != target.shape:
            message = f"{folder} does not fit the recipe: {tensor.name} should have the shape {list(target.shape)}."
            raise ConfigError(message, "initial")
        target.copy_(stored[tensor.name])


def _write_json(path: Path, content: Mapping[str, JsonValue]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
