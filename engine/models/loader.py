"""Weights from safetensors into a model, and back.

The model is built without storage, each parameter is allocated once in its final type and place, and tensors are
copied one by one out of memory-mapped shards: the peak is the weights themselves. Of a model that is divided, a rank
opens only the files and reads only the parts of tensors that it has a place for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from engine.errors import CheckpointError, ConfigError
from engine.layers.division import held_parameters
from engine.models.division import check_division
from engine.models.matching import check_weights
from engine.models.pieces import Wanted, wanted_pieces
from engine.models.registry import model_family
from engine.models.spec import DiffusionLM, ModelSpec
from engine.models.weight_files import (
    SINGLE_FILE,
    TensorSlice,
    WeightFiles,
    open_shard,
    read_weight_files,
)
from engine.parallel import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Stored bytes that are in place, of those that this rank takes."""

    loaded_bytes: int
    total_bytes: int
    tensor: str


def load_model(
    path: str | Path,
    spec: ModelSpec,
    dtype: torch.dtype,
    device: torch.device | str,
    on_progress: Callable[[LoadProgress], None] | None = None,
    ranks: Ranks = ALONE,
) -> DiffusionLM:
    """Load a folder whose facts are ``spec``: in evaluation mode, without gradients, this rank's part alone.

    CheckpointError names the file or tensor that is missing, unexpected, mis-shaped or damaged.
    """
    weights = read_weight_files(Path(path))
    model = build_model(spec, weights, ranks)
    wanted = wanted_pieces(held_parameters(model), check_weights(model, weights))
    _allocate(model, dtype, torch.device(device))
    parameters = dict(model.named_parameters())
    sizes = {name: weights.tensors[name].bytes_of(source.numel) for name, source in wanted.items()}
    loaded, total = 0, sum(sizes.values())
    for file, names in _reading_order(weights, wanted, ranks):
        with open_shard(weights.folder / file) as shard, torch.no_grad():
            for name in names:
                _copy(shard.get_slice(name), wanted[name], parameters)
                loaded += sizes[name]
                if on_progress is not None:
                    on_progress(LoadProgress(loaded, total, name))
    return model.requires_grad_(False).eval()


def build_model(spec: ModelSpec, weights: WeightFiles | None = None, ranks: Ranks = ALONE) -> DiffusionLM:
    """The network on the meta device: shapes without storage. ConfigError where it cannot be divided like that."""
    check_division(spec, ranks.layout)
    if weights is not None and spec.num_layers > len(weights.tensors):
        raise CheckpointError(
            f"config.json says {spec.num_layers} layers, but the files hold {len(weights.tensors)} tensors in all",
            "config.json",
        )
    with torch.device("meta"):
        return model_family(spec.architecture).model_class()(spec, ranks)


def save_model(model: DiffusionLM, folder: Path, dtype: torch.dtype) -> Path:
    """Write ``model.safetensors`` with the published names; the file appears complete or not at all.

    Parameters that a model keeps in float32 stay so. The model is whole, not a rank's part of one.
    """
    assert all(held.is_whole for held in held_parameters(model).values()), "a rank's part cannot be saved as a model"
    parameters = dict(model.named_parameters())
    exact = _float32_parameters(model)
    tensors = {}
    for target in model.checkpoint_tensors():
        kept_as = torch.float32 if target.parameter in exact else dtype
        tensors[target.name] = target.view(parameters).detach().to("cpu", kept_as, copy=True).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SINGLE_FILE
    unfinished = folder / f".{SINGLE_FILE}.{os.getpid()}"
    try:
        save_file(tensors, unfinished, metadata={"format": "pt"})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _copy(stored: TensorSlice, wanted: Wanted, parameters: Mapping[str, nn.Parameter]) -> None:
    for piece in wanted.pieces:
        parameters[wanted.parameter][piece.target].copy_(stored[piece.source])


def _reading_order(weights: WeightFiles, wanted: Mapping[str, Wanted], ranks: Ranks) -> Iterable[tuple[str, list[str]]]:
    """Files and the tensors to take from them. Each rank begins with another file: those of one node share its disk."""
    files = [(file, [name for name in names if name in wanted]) for file, names in weights.names_by_file().items()]
    files = [(file, names) for file, names in files if names]
    first = len(files) * ranks.rank // ranks.layout.world_size
    return files[first:] + files[:first]


def _float32_parameters(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that a module lists in its ``float32_parameters``."""
    return frozenset(
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        for name in getattr(module, "float32_parameters", ())
    )


def _allocate(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give each parameter uninitialised storage; a parameter that two modules share stays shared."""
    allocated: dict[int, nn.Parameter] = {}
    for module in model.modules():
        exact = getattr(module, "float32_parameters", ())
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in allocated:
                empty = _empty(parameter, torch.float32 if name in exact else dtype, device, model)
                allocated[id(parameter)] = nn.Parameter(empty, requires_grad=False)
            setattr(module, name, allocated[id(parameter)])
    assert not any(buffer.is_meta for buffer in model.buffers()), "models keep no buffers: nothing would fill them"


def _empty(parameter: nn.Parameter, dtype: torch.dtype, device: torch.device, model: nn.Module) -> torch.Tensor:
    try:
        return torch.empty(parameter.shape, dtype=dtype, device=device)
    except RuntimeError as error:  # what torch raises when memory cannot be had, on any device
        gib = sum(each.numel() for each in model.parameters()) * dtype.itemsize / 2**30
        raise ConfigError(
            f"{gib:.1f} GiB of weights cannot be allocated on {device}; divide the model over more ranks "
            "(tensor_parallel_size, expert_parallel_size) or choose a smaller dtype",
            "tensor_parallel_size",
        ) from error
