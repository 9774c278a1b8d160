"""What each rank reads of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import CheckpointError
from engine.layers.division import held_parameters
from engine.models import loader
from engine.models.loader import LoadProgress, load_model, save_model
from engine.models.spec import DiffusionLM
from engine.parallel import ALONE, ParallelLayout, Ranks, rank_without_others
from tests.helpers.families import FAMILIES, write_family

SINGLE = "model.safetensors"
LAYOUTS = [ParallelLayout(2), ParallelLayout(4, 2), ParallelLayout(1, 3), ParallelLayout(2, 4)]


class ReadShard:
    """A shard that counts the elements that are read through it."""

    def __init__(self, shard: Any, name: str, read: dict[str, int]) -> None:
        self._shard = shard
        self._name = name
        self._read = read

    def get_slice(self, name: str) -> ReadShard:
        return ReadShard(self._shard.get_slice(name), name, self._read)

    def __getitem__(self, box: tuple[slice, ...]) -> Tensor:
        part: Tensor = self._shard[box]
        self._read[self._name] = self._read.get(self._name, 0) + part.numel()
        return part


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, int]]:
    """Elements read of each tensor of each file that was opened for its weights."""
    files: dict[str, dict[str, int]] = {}
    original = loader.open_shard

    @contextmanager
    def counting(path: Path) -> Iterator[ReadShard]:
        with original(path) as shard:
            yield ReadShard(shard, "", files.setdefault(path.name, {}))

    monkeypatch.setattr(loader, "open_shard", counting)
    return files


def load(name: str, folder: Path, ranks: Ranks, seen: list[LoadProgress] | None = None) -> DiffusionLM:
    watch = None if seen is None else seen.append
    return load_model(folder, FAMILIES[name], torch.float32, "cpu", watch, ranks)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_parameters_are_the_parts_of_the_whole_that_the_layers_say(layout: ParallelLayout, tmp_path: Path) -> None:
    name = "llada2 groups"
    whole = dict(load(name, write_family(name, tmp_path), ALONE).named_parameters())
    seen = {parameter: torch.zeros(tensor.shape, dtype=torch.bool) for parameter, tensor in whole.items()}

    for rank in range(layout.world_size):
        model = load(name, tmp_path, rank_without_others(layout, rank))
        held = held_parameters(model)
        for parameter, tensor in model.named_parameters():
            index = torch.meshgrid(
                *(torch.cat([torch.arange(*span) for span in spans]) for spans in held[parameter].spans), indexing="ij"
            )
            assert torch.equal(tensor, whole[parameter][index])
            seen[parameter][index] = True

    assert all(everywhere.all() for everywhere in seen.values()), "some element is on no rank"


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_rank_reads_its_own_elements_only(
    layout: ParallelLayout, tmp_path: Path, opened: dict[str, dict[str, int]]
) -> None:
    folder = write_family("llada2 groups", tmp_path)
    for rank in range(layout.world_size):
        opened.clear()
        seen: list[LoadProgress] = []

        model = load("llada2 groups", folder, rank_without_others(layout, rank), seen)

        own = sum(parameter.numel() for parameter in model.parameters())
        assert sum(opened[SINGLE].values()) == own
        assert seen[-1].loaded_bytes == seen[-1].total_bytes == 4 * own
        assert {progress.tensor for progress in seen} == opened[SINGLE].keys()
        experts = {tensor.split(".experts.")[1].split(".")[0] for tensor in opened[SINGLE] if ".experts." in tensor}
        assert experts == {str(expert) for expert in range(*layout.expert_part(rank).span(8))}


def test_files_without_a_part_for_a_rank_stay_closed(tmp_path: Path, opened: dict[str, dict[str, int]]) -> None:
    folder, layout = write_family("sdar-moe", tmp_path), ParallelLayout(1, 4)
    split_experts(folder)

    load("sdar-moe", folder, rank_without_others(layout, 3))
    assert set(opened) == {"expert-6.safetensors", "expert-7.safetensors", "rest.safetensors"}


def test_ranks_begin_with_different_files(tmp_path: Path, opened: dict[str, dict[str, int]]) -> None:
    folder = write_family("llada", tmp_path)
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    for index, start in enumerate(range(0, len(tensors), 6)):
        save_file(dict(list(tensors.items())[start : start + 6]), folder / f"model-{index}.safetensors")
    first = []
    for rank in range(2):
        opened.clear()
        load("llada", folder, rank_without_others(ParallelLayout(2), rank))
        first.append(next(iter(opened)))

    assert first == ["model-0.safetensors", "model-2.safetensors"]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_stacked_experts_are_divided_like_single_ones(
    layout: ParallelLayout, tmp_path: Path, opened: dict[str, dict[str, int]]
) -> None:
    folder = write_family("llada-moe", tmp_path / "single")
    stacked = stack_experts(folder, tmp_path / "stacked")
    for rank in range(layout.world_size):
        expected = dict(load("llada-moe", folder, rank_without_others(layout, rank)).named_parameters())
        opened.clear()

        model = load("llada-moe", stacked, rank_without_others(layout, rank))

        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.named_parameters())
        assert sum(opened[SINGLE].values()) == sum(tensor.numel() for tensor in expected.values())


def test_wrong_shapes_are_named_by_ranks_without_a_part_of_them(tmp_path: Path) -> None:
    folder = write_family("sdar-moe", tmp_path)
    tensors = load_file(folder / SINGLE)
    name = "model.layers.1.mlp.experts.0.up_proj.weight"
    save_file({**tensors, name: torch.ones(3, 32)}, folder / SINGLE)

    with pytest.raises(CheckpointError, match=rf"{name} has shape \[3, 32\], config.json implies \[16, 32\]") as caught:
        load("sdar-moe", folder, rank_without_others(ParallelLayout(1, 2), 1))
    assert caught.value.param == name


def test_a_part_cannot_be_saved_as_a_model(tmp_path: Path) -> None:
    model = load("llada", write_family("llada", tmp_path), rank_without_others(ParallelLayout(2), 1))

    with pytest.raises(AssertionError, match="a rank's part"):
        save_model(model, tmp_path, torch.float32)


def split_experts(folder: Path) -> None:
    """A file for each expert, and one for the rest."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    files: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        expert = name.partition(".experts.")[2].partition(".")[0]
        files.setdefault(f"expert-{expert}.safetensors" if expert else "rest.safetensors", {})[name] = tensor
    for file, part in files.items():
        save_file(part, folder / file)


def stack_experts(folder: Path, target: Path) -> Path:
    """The experts of the last layer as ``w1`` and ``w2``."""
    tensors, prefix = load_file(folder / SINGLE), "model.layers.1.mlp."

    def stacked(projection: str) -> Tensor:
        return torch.stack([tensors.pop(f"{prefix}experts.{expert}.{projection}.weight") for expert in range(8)])

    tensors[prefix + "w1"] = torch.cat((stacked("gate_proj"), stacked("up_proj")), dim=1)
    tensors[prefix + "w2"] = stacked("down_proj")
    target.mkdir()
    save_file(tensors, target / SINGLE)
    return target
