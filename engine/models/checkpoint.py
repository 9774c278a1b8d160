"""A checkpoint folder resolved to a ModelSpec; no weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from engine.config import EngineConfig
from engine.errors import CheckpointError
from engine.models.family import ModelFamily, NetworkShape
from engine.models.json_fields import JsonFields
from engine.models.registry import model_family, read_architecture
from engine.models.resolution import (
    CheckpointFiles,
    resolve_block_length,
    resolve_mask_token,
    resolve_preset_family,
    resolve_stop_tokens,
    resolve_tied_head,
)
from engine.models.spec import ModelSpec
from engine.models.special_tokens import SpecialTokens, read_special_tokens
from engine.models.weight_files import WeightFiles, read_weight_files

CONFIG_FILE = "config.json"
MAX_SIZE = 2**24
"""Beyond any dimension of a real network: a larger one is a mistake in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A folder that can be loaded.

    ``sources`` tells, by the spec's field name, where a value was found that several places may hold.
    """

    path: Path
    family: ModelFamily
    spec: ModelSpec
    weights: WeightFiles
    sources: Mapping[str, str]


def open_checkpoint(path: str | Path, config: EngineConfig | None = None) -> Checkpoint:
    """Resolve a folder under the operator's options; CheckpointError or ConfigError says what to change."""
    folder = checkpoint_folder(path)
    return read_as(JsonFields.read(folder / CONFIG_FILE), folder, config)


def read_as(
    config_file: JsonFields, folder: Path, config: EngineConfig | None = None, weights: WeightFiles | None = None
) -> Checkpoint:
    """Resolve a folder as if its ``config.json`` were ``config_file`` and its weights ``weights`` (None: those that it
    holds)."""
    architecture = read_architecture(config_file)
    family = model_family(architecture)
    config_file.require("quantization_config")
    shape = family.read_config(config_file)
    _check_shape(shape)
    weights = read_weight_files(folder) if weights is None else weights
    files = CheckpointFiles(
        folder=folder,
        options=config or EngineConfig(),
        config=config_file,
        generation=JsonFields.read_optional(folder / "generation_config.json"),
        special_tokens=read_special_tokens(folder),
        family=family,
    )
    return _assemble(files, architecture, shape, weights)


def checkpoint_folder(path: str | Path) -> Path:
    """The folder as a Path, or a CheckpointError: names of models elsewhere are not fetched."""
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder} {what}; a checkpoint is a folder with {CONFIG_FILE} and *.safetensors", "path")
    return folder


def _assemble(files: CheckpointFiles, architecture: str, shape: NetworkShape, weights: WeightFiles) -> Checkpoint:
    _check_tokenizer(files.special_tokens, shape.vocab_size)
    mask = resolve_mask_token(files, shape.vocab_size)
    stops = resolve_stop_tokens(files, shape.vocab_size, mask.value)
    block = resolve_block_length(files)
    presets = resolve_preset_family(files, architecture)
    tied = resolve_tied_head(files.family, shape.tie_word_embeddings, weights.tensors)
    network = {field.name: getattr(shape, field.name) for field in fields(shape)}
    max_positions_field = network.pop("max_positions_field")
    network["tie_word_embeddings"] = tied.value
    spec = ModelSpec(
        architecture=architecture,
        attention=files.family.attention,
        mask_token_id=mask.value,
        stop_token_ids=stops.value,
        block_length=block.value,
        logit_shift=files.family.logit_shift,
        preset_family=presets.value,
        **network,
    )
    sources = {
        "mask_token_id": mask.source,
        "stop_token_ids": stops.source,
        "block_length": block.source,
        "preset_family": presets.source,
        "tie_word_embeddings": tied.source,
        "max_position_embeddings": files.config.where(max_positions_field),
    }
    return Checkpoint(path=files.folder, family=files.family, spec=spec, weights=weights, sources=sources)


def _check_shape(shape: NetworkShape) -> None:
    projection = max(shape.num_heads, shape.num_kv_heads) * shape.head_dim
    experts = (shape.moe.num_experts, shape.moe.intermediate_size) if shape.moe else ()
    largest = max(shape.vocab_size, shape.hidden_size, shape.intermediate_size, projection, *experts)
    if largest > MAX_SIZE:
        raise CheckpointError(f"{CONFIG_FILE}: a dimension of {largest} cannot be meant", CONFIG_FILE)
    if shape.num_heads % shape.num_kv_heads:
        heads, kv_heads = shape.num_heads, shape.num_kv_heads
        raise CheckpointError(f"{CONFIG_FILE}: {heads} heads cannot share {kv_heads} key/value heads", CONFIG_FILE)
    if shape.head_dim % 2:
        raise CheckpointError(f"{CONFIG_FILE}: the head dimension {shape.head_dim} must be even", CONFIG_FILE)


def _check_tokenizer(tokens: SpecialTokens, vocab_size: int) -> None:
    """Every id that a text can encode to must have an embedding."""
    text, largest = max(tokens.ids.items(), key=lambda item: item[1], default=("", -1))
    if largest >= vocab_size:
        message = f"the tokenizer gives {text!r} the id {largest}, but {CONFIG_FILE} has a vocabulary of {vocab_size}"
        raise CheckpointError(f"{message}; the files belong to different models", "tokenizer.json")
