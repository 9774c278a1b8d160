"""An autoregressive checkpoint opened as the block-diffusion one that it becomes.

SDAR's network is Qwen3's, tensor by tensor: the weights are taken as they are. What changes are a few fields of
``config.json`` and the mask token. Source: SDAR (arXiv 2510.06303) and the layout of its published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from engine.errors import UnsupportedModelError
from engine.models.checkpoint import CONFIG_FILE, checkpoint_folder, read_as
from engine.models.json_fields import JsonFields
from engine.models.loader import build_model, load_model
from engine.models.spec import ModelSpec
from engine.models.special_tokens import SpecialTokens, read_special_tokens
from engine.models.transformer import Transformer
from engine.models.transformer_config import rope_parameters
from engine.models.weight_files import SINGLE_FILE, StoredTensor, WeightFiles
from engine.training.job import CheckpointFiles
from engine.training.mask_token import MaskToken, add_mask_row, choose_mask_token, tokenizer_writer, vocabulary_with


class Target(NamedTuple):
    """What an architecture becomes."""

    architecture: str
    model_type: str


HEAD = "lm_head.weight"
SDAR = Target("SDARForCausalLM", "sdar")
SDAR_MOE = Target("SDARMoeForCausalLM", "sdar_moe")
TARGETS = {
    "Qwen3ForCausalLM": SDAR,
    "Qwen3MoeForCausalLM": SDAR_MOE,
    SDAR.architecture: SDAR,
    SDAR_MOE.architecture: SDAR_MOE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A trainable float32 network and the other files of its checkpoint. ``end`` fills samples up to whole blocks;
    ``notes`` are sentences for the user."""

    model: Transformer
    files: CheckpointFiles
    tokens: SpecialTokens
    end: int
    notes: tuple[str, ...]


def convert(path: str | Path, block_length: int, *, shapes_only: bool = False) -> Converted:
    """Open a Qwen3, Qwen3-MoE or SDAR folder. CheckpointError names the file and field that stand in the way.

    With ``shapes_only`` the network is on the meta device, and the folder need not hold any weights.
    """
    folder = checkpoint_folder(path)
    source = JsonFields.read(folder / CONFIG_FILE)
    target = _target(source)
    tokens = read_special_tokens(folder)
    mask = choose_mask_token(source, tokens)
    write_tokenizer = tokenizer_writer(folder, mask)
    stored_size = source.integer("vocab_size")
    config = dict(source.items()) | {
        "architectures": [target.architecture],
        "model_type": target.model_type,
        "block_size": block_length,
        "mask_token_id": mask.id,
        "vocab_size": vocabulary_with(mask, stored_size),
    }
    weights = _published_weights(folder, source) if shapes_only else None
    checkpoint = read_as(JsonFields(CONFIG_FILE, config), folder, weights=weights)
    config |= _spelled_out(source, checkpoint.spec)
    return Converted(
        model=_shapes(checkpoint.spec) if shapes_only else _load(folder, checkpoint.spec, stored_size, mask, tokens),
        files=CheckpointFiles(
            config=config,
            generation_config=dict(JsonFields.read_optional(folder / "generation_config.json").items()),
            write_tokenizer=write_tokenizer,
            dtype=checkpoint.weights.dtype,
        ),
        tokens=tokens,
        end=_end(folder, tokens, checkpoint.spec),
        notes=tuple(_notes(mask, stored_size, checkpoint.spec.vocab_size)),
    )


def _target(config: JsonFields) -> Target:
    value = config.get("architectures")
    name = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(name, str) and name in TARGETS:
        return TARGETS[name]
    raise UnsupportedModelError(
        f"{config.file}: architectures = {name!r} cannot be adapted: SDAR's published layout is that of Qwen3 and "
        f"Qwen3-MoE, with its norm of queries and keys; supported are: {', '.join(TARGETS)}",
        "architectures",
    )


def _spelled_out(config: JsonFields, spec: ModelSpec) -> dict[str, object]:
    """Fields under the names that SDAR's own configuration class reads, where transformers 5 writes others."""
    spelled: dict[str, object] = {"rope_theta": spec.rope_theta} if rope_parameters(config).get("rope_theta") else {}
    if spec.moe is not None:
        spelled["num_experts"] = spec.moe.num_experts
    return spelled | {"tie_word_embeddings": spec.tie_word_embeddings}


def _published_weights(folder: Path, config: JsonFields) -> WeightFiles:
    """What tells a tied head from one of its own, as bfloat16: the head, where the config does not tie it."""
    head = StoredTensor(SINGLE_FILE, "BF16", (config.integer("vocab_size"), config.integer("hidden_size")))
    tied = config.optional_flag("tie_word_embeddings")
    return WeightFiles(folder, {} if tied else {HEAD: head})


def _shapes(spec: ModelSpec) -> Transformer:
    model = build_model(spec)
    assert isinstance(model, Transformer), "SDAR's networks are transformers of the shared kind"
    return model.train()


def _load(folder: Path, spec: ModelSpec, stored_size: int, mask: MaskToken, tokens: SpecialTokens) -> Transformer:
    model = load_model(folder, replace(spec, vocab_size=stored_size), torch.float32, "cpu")
    assert isinstance(model, Transformer), "SDAR's networks are transformers of the shared kind"
    if mask.is_new:
        add_mask_row(model, mask, tokens.ids.values(), spec.vocab_size)
        model.spec = spec
    return model.requires_grad_().train()


def _end(folder: Path, tokens: SpecialTokens, spec: ModelSpec) -> int:
    """The padding token where it ends a completion (Qwen's ``<|endoftext|>``), else the end token, else any stop id."""
    text = JsonFields.read_optional(folder / "tokenizer_config.json").text("pad_token")
    for token_id in (tokens.ids.get(text or ""), tokens.eos_token_id):
        if token_id in spec.stop_token_ids:
            return token_id
    if not spec.stop_token_ids:
        message = f"{folder}: no file names a token that ends a text; set eos_token_id in generation_config.json"
        raise UnsupportedModelError(message, "eos_token_id")
    return min(spec.stop_token_ids)


def _notes(mask: MaskToken, stored_size: int, vocab_size: int) -> list[str]:
    if not mask.is_new:
        return [f"The mask token is {mask.text} ({mask.id}), which the tokenizer has already."]
    notes = [f"The mask token {mask.text} got the id {mask.id}; its embedding starts as the mean of all others."]
    if vocab_size > stored_size:
        notes.append(f"There was no free embedding row: the vocabulary grew from {stored_size} to {vocab_size}.")
    return notes
