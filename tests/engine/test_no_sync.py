"""No step makes the host wait for the device before its result is copied, shown without a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bench.throughput.shapes import random_model, shape
from engine.build import assemble_core
from engine.cache.kv_cache import KVCache
from engine.config import EngineConfig
from engine.llm_engine import LLMEngine
from engine.model_runner import ModelRunner
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import build_model, load_model
from engine.models.spec import DiffusionLM, ModelSpec
from engine.plan import IterationPlan, StepResult
from engine.tokenizer import MissingTokenizer
from engine.transfer import HostCopy, pack_to_device, to_device
from tests.helpers.engines import drive, make_request
from tests.helpers.mixture import mixture
from tests.helpers.syncs import PretendedCopy, Waits

CONFIG = EngineConfig(max_num_seqs=40, max_model_len=64, page_size=16, device="cpu", max_num_batched_tokens=300)
META, CPU = torch.device("meta"), torch.device("cpu")


class Watched:
    """Executes plans twice: on a runner under observation, and on one whose device has no values at all."""

    def __init__(self, runner: ModelRunner, bare: ModelRunner | None) -> None:
        self._runner = runner
        self._bare = bare
        self.waits = Waits()

    def execute(self, plan: IterationPlan) -> StepResult:
        if self._bare is not None:
            self._bare.execute(plan)
        with self.waits:
            return self._runner.execute(plan)


def watch(model: DiffusionLM, bare: DiffusionLM | None) -> tuple[LLMEngine, Watched]:
    seen: list[Watched] = []
    slot_len = 64 + 255

    def wrap(runner: ModelRunner) -> Watched:
        bare_runner = None if bare is None else ModelRunner(bare, storage(bare.spec, slot_len), 40, slot_len)
        seen.append(Watched(runner, bare_runner))
        return seen[0]

    core = assemble_core(model, CONFIG, 64, executor=wrap)
    return LLMEngine(core, model.spec, MissingTokenizer(), CONFIG, 64), seen[0]


def storage(spec: ModelSpec, slot_len: int) -> KVCache:
    num_pages = 40 * -(-slot_len // 16)
    return KVCache(spec.num_layers, num_pages, 16, spec.num_kv_heads, spec.head_dim, torch.float32, META)


@pytest.mark.parametrize("family", ["llada_folder", "sdar_folder"])
def test_nothing_waits_before_the_one_copy_of_the_result(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every decoder, with policies, transforms, guidance and sampling of all kinds in one batch. Tensors without values
    cannot be read by anybody: what passes on them needs nothing of the device but the copies that are pretended."""
    monkeypatch.setattr("engine.model_runner.HostCopy", PretendedCopy)
    path: Path = request.getfixturevalue(family)
    checkpoint = open_checkpoint(path, CONFIG)
    model = load_model(path, checkpoint.spec, torch.float32, CPU)
    engine, watched = watch(model, build_model(checkpoint.spec).to(META))
    requests = mixture(engine, caches_per_decoder=1)
    for one in requests:
        engine.add_request(one)
    for _ in range(5):
        engine.step()
    assert watched.waits.found == []


def test_experts_wait_for_nothing_where_they_are_one_product() -> None:
    spec = shape("llada-moe-67m")
    small = ModelSpec(
        **{name: getattr(spec, name) for name in ModelSpec.__slots__}
        | {"num_layers": 1, "vocab_size": 600, "mask_token_id": 599, "hidden_size": 64}
    )
    engine, watched = watch(random_model(small, torch.float32, CPU), None)
    drive(engine, [make_request("a", [5, 6, 7], max_tokens=4)])
    assert watched.waits.found == []


def test_a_wait_is_seen() -> None:
    numbers, flags = torch.arange(4), torch.tensor([True, False, True, False])
    with Waits() as waits:
        int(numbers.sum())
        flags.nonzero()
        numbers[flags]
        numbers[flags] = 0
    assert waits.found == [
        "aten._local_scalar_dense.default",
        "aten.nonzero.default",
        "aten.index.Tensor",
        "aten.index_put_.default",
    ]


def test_arrays_go_to_a_device_in_one_piece_and_come_back() -> None:
    numbers, flags, none = np.array([3, -1, 2**40]), np.array([True, False]), np.empty(0, np.int64)
    for device in (CPU, META):
        sent = pack_to_device([numbers, flags, none], device)
        assert [(one.dtype, len(one)) for one in sent] == [(torch.int64, 3), (torch.bool, 2), (torch.int64, 0)]
        assert all(one.device.type == device.type for one in sent)
    assert HostCopy(to_device(numbers, CPU)).array().tolist() == numbers.tolist()
