"""A group of ranks over Ray actors, without Serve: what a start that fails says, ranks that disagree, an engine that is
closed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray._private import state
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.placement import GroupPlacement
from cluster.rank_worker import GroupSettings
from cluster.worker_group import RankLostError, WorkerGroup
from deployments.config import resolve_checkpoint
from engine.async_engine import AsyncEngine
from engine.canvas import Canvas
from engine.config import EngineConfig
from engine.errors import CheckpointError, ConfigError, EngineDeadError, LacunaError
from engine.llm_engine import LLMEngine
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest
from tests.helpers.engines import load
from tests.integration.conftest import Service

pytestmark = pytest.mark.timeout(240)

FOLDER = resolve_checkpoint("lacuna-tiny-sdar")
CONFIG = EngineConfig(tensor_parallel_size=2, max_model_len=128, max_num_seqs=4)
PLACEMENT = GroupPlacement(world_size=2, num_cpus=0.1)
PROMPT = [65, 66, 67]
SAMPLING = SamplingParams(max_tokens=24, ignore_eos=True)


HUGE = replace(CONFIG, page_size=10**9)
"""More K/V memory than any machine has."""


def start_group(
    folder: Path, config: EngineConfig = CONFIG, on_start: Callable[[int], None] | None = None
) -> WorkerGroup:
    settings = GroupSettings(
        checkpoint=folder, config=config, num_threads=1, timeout_s=10, start_timeout_s=60, on_start=on_start
    )
    return WorkerGroup(settings, PLACEMENT)


def misread(rank: int) -> None:
    """Make this process write another first token into each canvas than it is told, as memory that fails does."""
    admit = Canvas.admit

    def spoil(canvas: Canvas, slot: int, tokens: torch.Tensor) -> None:
        admit(canvas, slot, torch.cat((tokens[:1] + 1, tokens[1:])))

    Canvas.admit = spoil  # type: ignore[method-assign]


def make_engine(group: WorkerGroup, config: EngineConfig = CONFIG) -> LLMEngine:
    with group.loading(lambda progress: None) as on_progress:
        return LLMEngine.from_pretrained(FOLDER, config, on_progress, group.ranks, group.lead)


def wait_for_loss(group: WorkerGroup) -> None:
    """Let the group raise what has happened to it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        group.check()
        time.sleep(0.05)


async def generate(engine: AsyncEngine) -> tuple[int, ...]:
    engine.start()
    request = GenerationRequest(request_id="a", prompt=PROMPT, sampling=SAMPLING)
    token_ids = [token async for output in engine.generate(request) for token in output.token_ids]
    await engine.close()
    return tuple(token_ids)


class Leader:
    """The process of rank 0."""

    def generate(self) -> tuple[int, ...]:
        """Run an engine over the group, and close it."""
        group = start_group(FOLDER)
        return asyncio.run(generate(AsyncEngine(make_engine(group), followers=group)))

    def disagreeing(self) -> tuple[str, str]:
        """What a client is told whose ranks differ, and what the health check says afterwards."""
        config = replace(CONFIG, check_ranks=2)
        group = start_group(FOLDER, config, misread)
        engine = AsyncEngine(make_engine(group, config), followers=group)
        group.on_failure(engine.fail)
        with pytest.raises(EngineDeadError) as told:
            asyncio.run(generate(engine))
        with pytest.raises(RankLostError) as found:
            wait_for_loss(group)
        return told.value.message, found.value.message

    def refused(self, folder: Path = FOLDER, theirs: EngineConfig = CONFIG, own: EngineConfig = CONFIG) -> LacunaError:
        """The error of a start where the other rank's checkpoint is at ``folder`` and its settings are ``theirs``."""
        return self._refusal(start_group(folder, theirs), own)

    def bereaved(self) -> LacunaError:
        """The error of a start during which the other rank is killed."""
        group = start_group(FOLDER)
        os.kill(group.infos[1].pid, signal.SIGKILL)
        return self._refusal(group)

    def _refusal(self, group: WorkerGroup, own: EngineConfig = CONFIG) -> LacunaError:
        with pytest.raises(LacunaError) as caught:
            make_engine(group, own)
        return type(caught.value)(caught.value.message, caught.value.param)  # its causes do not travel


@pytest.fixture
def leader(service: Service) -> Iterator[Any]:
    """An actor in the first of two bundles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves pipes and sockets of its processes open
        group: PlacementGroup = placement_group([{"CPU": 0.1}] * 2, strategy="STRICT_PACK")
        strategy = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
        actor = ray.remote(Leader).options(num_cpus=0.1, scheduling_strategy=strategy).remote()
        yield actor
        ray.kill(actor)
        remove_placement_group(group)


def live_workers() -> int:
    return sum(
        actor["ActorClassName"] == "RankWorker" and actor["State"] == "ALIVE" for actor in state.actors().values()
    )


def test_a_group_gives_the_tokens_of_one_rank_and_ends_when_closed(leader: Any, eventually: Any) -> None:
    alone = load(FOLDER, max_model_len=128)
    (expected,) = alone.generate([PROMPT], SAMPLING)
    before = live_workers()
    assert ray.get(leader.generate.remote()) == expected.token_ids
    eventually(lambda: live_workers() == before)


def truncated(folder: Path) -> str:
    os.truncate(folder / "model.safetensors", 100_000)
    return "model.safetensors is damaged or truncated"


def without_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "holds no *.safetensors file"


def missing(folder: Path) -> str:
    shutil.rmtree(folder)
    return "does not exist"


@pytest.mark.parametrize("spoil", [truncated, without_weights, missing])
def test_a_start_that_fails_names_the_rank_and_the_file(
    leader: Any, tmp_path: Path, eventually: Any, spoil: Callable[[Path], str]
) -> None:
    before = live_workers()
    folder = shutil.copytree(FOLDER, tmp_path / "copy")
    complaint = spoil(folder)
    error = ray.get(leader.refused.remote(folder))
    assert isinstance(error, CheckpointError)
    assert error.message.startswith("rank 1 (pid ")
    assert str(folder) in error.message
    assert complaint in error.message
    eventually(lambda: live_workers() == before)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_without_memory_is_named_with_the_settings(leader: Any, eventually: Any, rank: int) -> None:
    before = live_workers()
    settings = {"own" if rank == 0 else "theirs": HUGE}
    error = ray.get(leader.refused.remote(**settings))
    assert isinstance(error, ConfigError)
    assert error.message.startswith(f"rank {rank} (pid ")
    assert "GiB of K/V memory cannot be allocated on cpu; lower max_num_seqs" in error.message
    assert error.param == "kv_cache_positions"
    eventually(lambda: live_workers() == before)


def test_a_rank_that_dies_while_it_loads_is_named(leader: Any) -> None:
    error = ray.get(leader.bereaved.remote())
    assert isinstance(error, EngineDeadError)
    assert error.message.startswith("rank 1 (pid ")
    assert "has died" in error.message


def test_ranks_that_disagree_are_found_and_ended(leader: Any, eventually: Any) -> None:
    before = live_workers()
    told, found = ray.get(leader.disagreeing.remote())
    difference = "after forward 2 the ranks' canvases differ: slot 0: rank 0 against rank 1"
    assert difference in told
    assert difference in found, "whichever rank says it first"
    eventually(lambda: live_workers() == before)


def test_ranks_need_a_placement_group(service: Service) -> None:
    with pytest.raises(ConfigError, match="need a placement group"):
        start_group(FOLDER)
