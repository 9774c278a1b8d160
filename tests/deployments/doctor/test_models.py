"""deployments/doctor/models.py: real folders, whole and broken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deployments.config import AppConfig
from deployments.doctor.finding import Finding, Status, Subject
from deployments.doctor.machine import GPU_MEMORY_SHARE, Gpu, Machine
from deployments.doctor.models import (
    PROCESS_BYTES,
    RAY_BYTES,
    check_checkpoints,
    check_memory,
    check_settings,
    plan_model,
)
from deployments.launch import ServerOptions
from tests.helpers.checkpoints import write_llada, write_sdar, write_tokenizer

GIB = 2**30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tokenizer(write_llada(tmp_path / "model", dtype=torch.bfloat16))


def subject(path: Path, *, ray_address: str = "local", **settings: object) -> Subject:
    config = AppConfig.parse({"models": [{"id": "mine", "path": str(path), **settings}]})
    return Subject(config=config, options=ServerOptions(ray_address=ray_address))


def only(findings: object) -> Finding:
    (found,) = findings  # type: ignore[misc]
    assert isinstance(found, Finding)
    return found


def machine(available: int = 8 * GIB, *gpus: Gpu) -> Machine:
    return Machine(cores=4, memory_bytes=16 * GIB, available_bytes=available, fast_bfloat16=False, gpus=gpus)


def test_a_whole_checkpoint(folder: Path) -> None:
    found = only(check_checkpoints(subject(folder)))
    assert (found.check, found.status) == ("model mine", Status.OK)
    assert "LLaDA" in found.message
    assert "BF16" in found.message


def test_without_a_tokenizer(tmp_path: Path) -> None:
    assert [found.status for found in check_checkpoints(subject(write_sdar(tmp_path)))] == [Status.OK, Status.WARNING]


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def make_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def remove(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "damaged or truncated"),
        (make_pointer, "git lfs pull"),
        (lose_a_shard, "1 of 2 shards"),
        (remove, "config.json"),
    ],
)
def test_a_broken_checkpoint(folder: Path, damage: object, words: str) -> None:
    damage(folder)  # type: ignore[operator]
    found = only(check_checkpoints(subject(folder)))
    assert found.status is Status.FAILURE
    assert words in found.message
    assert found.remedy


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"max_model_len": 100_000}, "exceeds the model's"),
        ({"max_num_batched_tokens": 8}, "max_num_batched_tokens 8 is smaller"),
        ({"kv_cache_positions": 8}, "holds less than one canvas"),
    ],
)
def test_settings_that_the_engine_would_refuse(folder: Path, engine: dict[str, int], words: str) -> None:
    *_, found = check_checkpoints(subject(folder, engine=engine))
    assert found.status is Status.FAILURE
    assert words in found.message


def test_a_folder_that_only_the_cluster_has(tmp_path: Path) -> None:
    found = only(check_checkpoints(subject(tmp_path / "far", ray_address="10.0.0.1:6379")))
    assert (found.status, "the nodes are asked" in found.message) == (Status.OK, True)
    assert only(check_checkpoints(subject(tmp_path / "far"))).status is Status.FAILURE


def test_memory_of_the_replicas_that_start(folder: Path) -> None:
    assert only(check_memory(subject(folder), machine())).status is Status.OK
    found = only(check_memory(subject(folder, num_replicas=20), machine()))
    assert found.status is Status.FAILURE
    assert "20 x mine" in found.message
    scaling = {"min_replicas": 2, "initial_replicas": 3, "max_replicas": 4}
    assert "3 x mine" in only(check_memory(subject(folder, autoscaling=scaling), machine())).message


def test_too_much_kv(folder: Path) -> None:
    found = only(check_memory(subject(folder, engine={"max_num_seqs": 4096}), machine(GIB)))
    assert found.status is Status.FAILURE
    assert "max_num_seqs" in found.remedy
    assert list(check_memory(subject(folder, ray_address="auto"), machine(GIB))) == []


@pytest.mark.parametrize(
    ("total", "free", "num_gpus", "status"),
    [
        (GIB, GIB, 1, Status.OK),
        (GIB, 2**20, 1, Status.WARNING),
        (2**20, 2**20, 1, Status.FAILURE),
        (GIB, GIB, 0.001, Status.FAILURE),
    ],
)
def test_memory_of_a_gpu(folder: Path, total: int, free: int, num_gpus: float, status: Status) -> None:
    asking = subject(folder, num_gpus=num_gpus)
    assert only(check_memory(asking, machine(8 * GIB, Gpu("H100", total, free)))).status is status


def test_sampled_requests_take_more(folder: Path) -> None:
    plan = plan_model(subject(folder).config.models[0])  # type: ignore[union-attr]
    enough_for_greedy = machine(RAY_BYTES + plan.total_bytes + PROCESS_BYTES + plan.drawing_bytes // 2)
    assert only(check_memory(subject(folder), enough_for_greedy)).status is Status.WARNING
    needed = int((plan_model(subject(folder, num_gpus=1).config.models[0]).total_bytes + 1) / GPU_MEMORY_SHARE)  # type: ignore[union-attr]
    gpu = Gpu("small", needed, needed)
    found = only(check_memory(subject(folder, num_gpus=1), machine(8 * GIB, gpu)))
    assert (found.status, "sampled requests" in found.message) == (Status.WARNING, True)


def test_settings_that_could_not_be_read() -> None:
    broken = Subject(config=None, problem="models: unknown 'modles'")
    assert only(check_settings(broken)).message == "models: unknown 'modles'"
    assert [*check_checkpoints(broken), *check_memory(broken, machine())] == []
    assert only(check_settings(Subject())).status is Status.OK
