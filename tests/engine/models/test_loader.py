"""Weights into a model and back, and every way in which a folder may be damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import CheckpointError, ConfigError, UnsupportedModelError
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import LoadProgress, load_model, save_model
from engine.models.spec import DiffusionLM
from tests.helpers.checkpoints import write_json, write_llada, write_sdar

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WRITERS = (write_llada, write_sdar)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> DiffusionLM:
    return load_model(folder, open_checkpoint(folder).spec, dtype, "cpu")


def published(model: DiffusionLM) -> dict[str, Tensor]:
    """The model's parameters under their published names."""
    parameters = dict(model.named_parameters())
    return {t.name: parameters[t.parameter][t.start : t.end] for t in model.checkpoint_tensors()}


def shard(folder: Path, names: tuple[str, ...], *, index: bool) -> Path:
    """Split ``model.safetensors`` over files of these names."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    parts = {file: dict(list(tensors.items())[i :: len(names)]) for i, file in enumerate(names)}
    for file, part in parts.items():
        save_file(part, folder / file)
    if index:
        weight_map = {name: file for file, part in parts.items() for name in part}
        write_json(folder / INDEX, {"metadata": {}, "weight_map": weight_map})
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)
    return folder


def assert_same(model: DiffusionLM, tensors: Mapping[str, Tensor]) -> None:
    found = published(model)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(found[name], tensor.to(found[name].dtype), rtol=0, atol=0)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_every_tensor_arrives_in_the_wanted_dtype(
    tmp_path: Path, write: Callable[..., Path], stored: torch.dtype, wanted: torch.dtype
) -> None:
    folder = write(tmp_path, dtype=stored)

    model = load(folder, wanted)

    assert {parameter.dtype for parameter in model.parameters()} == {wanted}
    assert_same(model, load_file(folder / SINGLE))
    assert not model.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("changes", [{"attention_bias": True}, {"tie_word_embeddings": True}])
def test_biases_and_tied_heads(tmp_path: Path, changes: dict[str, bool]) -> None:
    folder = write_sdar(tmp_path, **changes)

    model = load(folder)

    tensors = load_file(folder / SINGLE)
    assert_same(model, tensors)
    embedding = tensors["model.embed_tokens.weight"]
    head = tensors.get("lm_head.weight", embedding)
    hidden = torch.ones(1, 32)
    torch.testing.assert_close(model.compute_logits(hidden), hidden @ head.T)


@pytest.mark.parametrize(
    ("names", "index"),
    [
        (("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), True),
        (("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), False),
        (("weights-a.safetensors", "weights-b.safetensors", "weights-c.safetensors"), True),
        (("weights-a.safetensors", "weights-b.safetensors", "weights-c.safetensors"), False),
    ],
)
def test_shards(tmp_path: Path, names: tuple[str, ...], index: bool) -> None:
    tensors = load_file(write_sdar(tmp_path) / SINGLE)

    assert_same(load(shard(tmp_path, names, index=index)), tensors)


def test_files_beside_the_weights_are_left_alone(tmp_path: Path) -> None:
    tensors = load_file(write_llada(tmp_path) / SINGLE)
    save_file({"logits": torch.zeros(3)}, tmp_path / "forward.safetensors")

    assert_same(load(tmp_path), tensors)


def test_rotary_tables_in_the_files_are_ignored(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    folder = rewrite(write_sdar(tmp_path), lambda tensors: tensors.update({name: torch.zeros(8)}))

    assert name not in published(load(folder))


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    folder, seen = write_llada(tmp_path), list[LoadProgress]()

    load_model(folder, open_checkpoint(folder).spec, torch.float32, "cpu", seen.append)

    stored = load_file(folder / SINGLE)
    assert {progress.tensor for progress in seen} == stored.keys()
    assert seen[-1].loaded_bytes == seen[-1].total_bytes == sum(tensor.nbytes for tensor in stored.values())
    assert [p.loaded_bytes for p in seen] == sorted(p.loaded_bytes for p in seen)


@pytest.mark.parametrize("write", WRITERS)
def test_saving_is_the_inverse(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = write(tmp_path)
    original = load_file(folder / SINGLE)
    model = load(folder)

    path = save_model(model, tmp_path, torch.float32)

    assert path == tmp_path / SINGLE
    assert_same(load(tmp_path), original)
    save_model(model, tmp_path / "half", torch.bfloat16)
    halved = load_file(tmp_path / "half" / SINGLE)
    assert {tensor.dtype for tensor in halved.values()} == {torch.bfloat16}


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(write_llada(tmp_path))
    before = (tmp_path / SINGLE).read_bytes()

    def fail(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr("engine.models.loader.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(model, tmp_path, torch.float32)

    assert (tmp_path / SINGLE).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", SINGLE]


def test_missing_tensors_are_listed(tmp_path: Path) -> None:
    name = "model.transformer.blocks.1.q_proj.weight"
    folder = rewrite(write_llada(tmp_path), lambda tensors: tensors.pop(name))

    with pytest.raises(CheckpointError, match=f"lacks 1 tensor: {name}") as caught:
        load(folder)
    assert caught.value.param == name


def test_long_lists_are_cut(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"lacks 9 tensors: .* and 4 more"):
        load(_declare(write_llada(tmp_path), n_layers=3))


def test_extra_tensors_are_listed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds 11 tensors: model.layers.1.*SDARForCausalLM does not have"):
        load(_declare(write_sdar(tmp_path), num_hidden_layers=1))


def test_absurd_layer_counts_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="1000000000 layers"):
        load(_declare(write_sdar(tmp_path), num_hidden_layers=10**9))


def test_wrong_shapes_say_expected_and_found(tmp_path: Path) -> None:
    name = "model.norm.weight"
    folder = rewrite(write_sdar(tmp_path), lambda tensors: tensors.update({name: torch.ones(33)}))

    with pytest.raises(CheckpointError, match=rf"{name} has shape \[33\], config.json implies \[32\]") as caught:
        load(folder)
    assert caught.value.param == name


def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    name = "model.norm.weight"
    folder = rewrite(write_sdar(tmp_path), lambda tensors: tensors.update({name: torch.ones(32, dtype=torch.int8)}))

    with pytest.raises(UnsupportedModelError, match=f"{name} is stored as I8"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files_are_named(tmp_path: Path, keep: int) -> None:
    path = write_llada(tmp_path) / SINGLE
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(CheckpointError, match=rf"{path} is damaged or truncated") as caught:
        load(tmp_path)
    assert caught.value.param == SINGLE


def test_garbage_and_pointers_are_told_apart(tmp_path: Path) -> None:
    path = write_llada(tmp_path) / SINGLE
    path.write_bytes(bytes(range(256)))
    with pytest.raises(CheckpointError, match="damaged"):
        load(tmp_path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        load(tmp_path)


def test_weights_for_which_there_is_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, empty = write_llada(tmp_path), torch.empty
    spec = open_checkpoint(folder).spec

    def allocate(*size: object, device: object = None, **options: object) -> Tensor:
        if device is not None:  # networks are built without naming one
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return empty(*size, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch, "empty", allocate)
    with pytest.raises(ConfigError, match=r"0.0 GiB of weights cannot be allocated on cpu; .*more ranks") as caught:
        load_model(folder, spec, torch.float32, "cpu")
    assert caught.value.param == "tensor_parallel_size"


TWO = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_a_listed_shard_that_is_absent(tmp_path: Path) -> None:
    folder = shard(write_sdar(tmp_path), TWO, index=True)
    (folder / TWO[1]).unlink()

    with pytest.raises(CheckpointError, match=f"lists {TWO[1]}, which is missing"):
        load(folder)


def test_a_numbered_shard_that_is_absent_without_an_index(tmp_path: Path) -> None:
    folder = shard(write_sdar(tmp_path), TWO, index=False)
    (folder / TWO[1]).unlink()

    with pytest.raises(CheckpointError, match="1 of 2 shards"):
        load(folder)


def test_an_index_that_names_a_tensor_its_shard_lacks(tmp_path: Path) -> None:
    folder = shard(write_sdar(tmp_path), TWO, index=True)
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    name = next(name for name, file in index["weight_map"].items() if file == TWO[0])
    index["weight_map"][name] = TWO[1]
    write_json(folder / INDEX, index)

    with pytest.raises(CheckpointError, match=f"{TWO[1]} holds {name}, but it does not"):
        load(folder)


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ({}, "no weight_map"),
        ({"weight_map": {"a": "../elsewhere.safetensors"}}, "a file beside it"),
        ({"weight_map": {"a": 1}}, "a file beside it"),
    ],
)
def test_a_bad_index(tmp_path: Path, index: object, complaint: str) -> None:
    folder = shard(write_sdar(tmp_path), TWO, index=True)
    write_json(folder / INDEX, index)

    with pytest.raises(CheckpointError, match=complaint):
        load(folder)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    folder = shard(write_sdar(tmp_path), ("a.safetensors", "b.safetensors"), index=False)
    save_file(load_file(folder / "a.safetensors"), folder / "c.safetensors")

    with pytest.raises(CheckpointError, match=r"in both a.safetensors and c.safetensors"):
        load(folder)


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_with_a_way_out(tmp_path: Path, pickle: str) -> None:
    folder = write_llada(tmp_path)
    (folder / SINGLE).rename(folder / pickle)

    with pytest.raises(CheckpointError, match=rf"pickled.*{pickle}.*save_file") as caught:
        load(folder)
    assert caught.value.param == pickle


def test_no_weights_at_all(tmp_path: Path) -> None:
    (write_llada(tmp_path) / SINGLE).unlink()

    with pytest.raises(CheckpointError, match=r"no \*.safetensors"):
        load(tmp_path)


def _declare(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, **changes})
    return folder
