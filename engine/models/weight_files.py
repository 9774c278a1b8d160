"""The safetensors files of a checkpoint, known by their headers alone: nothing is loaded here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open

from engine.errors import CheckpointError
from engine.models.json_fields import JsonFields

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
STORED_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
STORED_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16}


class TensorSlice(Protocol):
    """What a shard tells of a tensor without loading it, and parts of it: views of the mapped file."""

    def get_dtype(self) -> str: ...
    def get_shape(self) -> list[int]: ...
    def __getitem__(self, box: tuple[slice, ...]) -> torch.Tensor: ...


class Shard(Protocol):
    """An open safetensors file."""

    def keys(self) -> list[str]: ...
    def get_slice(self, name: str) -> TensorSlice: ...


class StoredTensor(NamedTuple):
    """A tensor as a header describes it; ``dtype`` in the format's own spelling (``"BF16"``)."""

    file: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.bytes_of(self.numel)

    def bytes_of(self, numel: int) -> int:
        """Stored size of so many elements."""
        return numel * STORED_BITS.get(self.dtype, 8) // 8


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """All tensors of a checkpoint by published name."""

    folder: Path
    tensors: Mapping[str, StoredTensor]

    @property
    def num_parameters(self) -> int:
        return sum(tensor.numel for tensor in self.tensors.values())

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    @property
    def parameters_by_dtype(self) -> Mapping[str, int]:
        """Most frequent first."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors.values():
            counts[tensor.dtype] += tensor.numel
        return dict(counts.most_common())

    @property
    def dtype(self) -> torch.dtype:
        """The type that most parameters are stored in; float32 where torch cannot compute in it."""
        most = next(iter(self.parameters_by_dtype), "F32")
        return STORED_DTYPES.get(most, torch.float32)

    def names_by_file(self) -> Mapping[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name, tensor in self.tensors.items():
            names.setdefault(tensor.file, []).append(name)
        return names


def read_weight_files(folder: Path) -> WeightFiles:
    """Read the headers of ``model.safetensors``, of the index's shards, or of all shards where there is no index."""
    files, listed = _choose_files(folder)
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in _read_header(folder / file):
            if listed.get(name, file) != file:
                continue  # the index points at another copy
            if name in tensors:
                raise CheckpointError(f"tensor {name} is in both {tensors[name].file} and {file}; keep one", name)
            tensors[name] = tensor
    for name, file in listed.items():
        if name not in tensors:
            raise CheckpointError(f"{INDEX_FILE} says that {file} holds {name}, but it does not; fetch it again", file)
    return WeightFiles(folder, tensors)


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a safetensors file; whatever is wrong with it becomes a CheckpointError that names it."""
    try:
        with safe_open(path, framework="pt", device="cpu") as shard:
            yield cast("Shard", shard)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; fetch the checkpoint again", path.name) from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} {_damage(path)} ({error})", path.name) from error


def _damage(path: Path) -> str:
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(23) == b"version https://git-lfs":
                return "is a git-lfs pointer, not the weights; run `git lfs pull`"
    return "is damaged or truncated; fetch it again"


def _read_header(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    with open_shard(path) as shard:
        for name in shard.keys():  # noqa: SIM118 - a file, not a mapping
            part = shard.get_slice(name)
            yield name, StoredTensor(path.name, part.get_dtype(), tuple(part.get_shape()))


def _choose_files(folder: Path) -> tuple[list[str], Mapping[str, str]]:
    """The files to read and, from an index, which tensor lies in which of them."""
    if (folder / SINGLE_FILE).exists():
        return [SINGLE_FILE], {}
    if (folder / INDEX_FILE).exists():
        listed = _read_index(folder)
        return sorted(set(listed.values())), listed
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    shards = shards or sorted(path.name for path in folder.glob("*.safetensors"))
    if not shards:
        raise _no_weights(folder)
    _check_shard_count(shards)
    return shards, {}


def _read_index(folder: Path) -> Mapping[str, str]:
    weight_map = JsonFields.read(folder / INDEX_FILE).mapping("weight_map")
    if not weight_map:
        raise CheckpointError(f"{INDEX_FILE} has no weight_map; fetch it again", INDEX_FILE)
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{INDEX_FILE}: {name} must name a file beside it, found {file!r}", INDEX_FILE)
        if not (folder / file).exists():
            raise CheckpointError(f"{INDEX_FILE} lists {file}, which is missing; fetch the checkpoint again", file)
    return {name: str(file) for name, file in weight_map.items()}


def _check_shard_count(shards: list[str]) -> None:
    """``model-00001-of-00003.safetensors`` says how many there should be."""
    total = shards[0].removesuffix(".safetensors").rpartition("-of-")[2]
    if total.isdigit() and int(total) != len(shards):
        message = f"{len(shards)} of {int(total)} shards are there ({', '.join(shards)}); fetch the rest"
        raise CheckpointError(message, shards[0])


def _no_weights(folder: Path) -> CheckpointError:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if not pickles:
        return CheckpointError(f"{folder} holds no *.safetensors file", SINGLE_FILE)
    return CheckpointError(
        f"{folder} holds pickled weights only ({', '.join(pickles[:5])}). Pickles can run code when they are loaded "
        "and are refused; convert them on a machine you can spare: safetensors.torch.save_file("
        f"torch.load({pickles[0]!r}, weights_only=True), {SINGLE_FILE!r})",
        pickles[0],
    )
