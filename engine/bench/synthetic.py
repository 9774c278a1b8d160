"""Checkpoints to try what no embedded model can show: experts on several ranks, prompts of thousands of tokens.

They answer with noise, in the words of the checkpoint that they have their tokenizer from.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from engine.bench.throughput.shapes import random_model, shape
from engine.errors import ConfigError
from engine.layers.routing import SoftmaxRouting
from engine.models.checkpoint import CONFIG_FILE, open_checkpoint
from engine.models.loader import save_model
from engine.models.spec import ModelSpec, MoESpec

POSITION_FIELDS = ("max_position_embeddings", "max_sequence_length")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
EXPERTS_PER_TOKEN = 2


def synthesize_moe(folder: Path, tokenizer: Path, num_experts: int = 8, seed: int = 0) -> ModelSpec:
    """Write a LLaDA-MoE checkpoint of some megabytes with random weights and the tokenizer of ``tokenizer``."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; name a new folder", "folder")
    spec = _spec(open_checkpoint(tokenizer).spec, num_experts)
    save_model(random_model(spec, torch.float32, torch.device("cpu"), seed), folder, torch.bfloat16)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    (folder / CONFIG_FILE).write_text(json.dumps(_config(spec), indent=2) + "\n", encoding="utf-8")
    return spec


def with_positions(source: Path, folder: Path, positions: int) -> None:
    """A copy of a checkpoint that accepts so many positions. Beyond those that it was trained for it answers with noise
    and computes as it would with sense."""
    shutil.copytree(source, folder)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    config |= {name: positions for name in POSITION_FIELDS if name in config}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _spec(model: ModelSpec, num_experts: int) -> ModelSpec:
    """A network for the vocabulary and positions of ``model``."""
    return replace(
        shape("llada-moe-67m"),
        vocab_size=model.vocab_size,
        max_position_embeddings=model.max_position_embeddings,
        mask_token_id=model.mask_token_id,
        stop_token_ids=model.stop_token_ids,
        hidden_size=128,
        intermediate_size=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=4,
        head_dim=32,
        moe=MoESpec(
            num_experts=num_experts, intermediate_size=128, routing=SoftmaxRouting(experts_per_token=EXPERTS_PER_TOKEN)
        ),
    )


def _config(spec: ModelSpec) -> dict[str, object]:
    """``config.json`` as LLaDA-MoE's is published."""
    assert spec.moe is not None
    return {
        "architectures": [spec.architecture],
        "model_type": "llada",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "dense_intermediate_size": spec.intermediate_size,
        "expert_intermediate_size": spec.moe.intermediate_size,
        "num_experts": spec.moe.num_experts,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "qk_layernorm": True,
        "hidden_act": "silu",
        "max_position_embeddings": spec.max_position_embeddings,
        "rope_theta": spec.rope_theta,
        "rms_norm_eps": spec.rms_norm_eps,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "mask_token_id": spec.mask_token_id,
    }
