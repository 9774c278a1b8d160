"""Checkpoints in the published layouts: written atomically, read back to go on training."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from engine.models.loader import save_model
from engine.models.spec import DiffusionLM
from engine.training.families import Family
from engine.training.tokenizer import save_tokenizer


def save_checkpoint(
    folder: Path, model: DiffusionLM, family: Family, tokenizer: Tokenizer, record: dict[str, object]
) -> None:
    """Write config, weights (bfloat16), tokenizer and ``record`` (``training.json``). ``folder`` changes at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    save_model(model, staging, torch.bfloat16)
    stop_ids = sorted(model.spec.stop_token_ids)
    _write_json(staging / "config.json", family.config(model.spec))
    _write_json(staging / "generation_config.json", {"eos_token_id": stop_ids, "pad_token_id": stop_ids[0]})
    _write_json(staging / "training.json", record)
    save_tokenizer(tokenizer, staging, model.spec.max_position_embeddings)
    staging.chmod(0o755)
    for path in staging.iterdir():
        path.chmod(0o644)
    retired = folder.with_name(folder.name + ".old")
    if folder.exists():
        os.replace(folder, retired)
    os.replace(staging, folder)
    shutil.rmtree(retired, ignore_errors=True)


@torch.no_grad()
def load_weights(model: DiffusionLM, folder: Path) -> None:
    """Fill ``model`` from a checkpoint that :func:`save_checkpoint` wrote."""
    stored = load_file(folder / "model.safetensors")
    parameters = dict(model.named_parameters())
    for tensor in model.checkpoint_tensors():
        parameters[tensor.parameter][tensor.start : tensor.end].copy_(stored[tensor.name])


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
