"""A group of ranks over Ray actors, without Serve: what a start that fails says, and an engine that is closed."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import state
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.placement import GroupPlacement
from cluster.rank_worker import GroupSettings
from cluster.worker_group import WorkerGroup
from deployments.config import resolve_checkpoint
from engine.async_engine import AsyncEngine
from engine.config import EngineConfig
from engine.errors import ConfigError, LacunaError
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


def start_group(folder: Path) -> WorkerGroup:
    settings = GroupSettings(checkpoint=folder, config=CONFIG, num_threads=1, timeout_s=10, start_timeout_s=60)
    return WorkerGroup(settings, PLACEMENT)


class Leader:
    """The process of rank 0."""

    def generate(self) -> tuple[int, ...]:
        """Run an engine over the group, and close it."""
        group = start_group(FOLDER)
        engine = AsyncEngine(LLMEngine.from_pretrained(FOLDER, CONFIG, None, group.ranks, group.lead), followers=group)
        engine.start()

        async def run() -> tuple[int, ...]:
            request = GenerationRequest(request_id="a", prompt=PROMPT, sampling=SamplingParams(max_tokens=24))
            token_ids = [token async for output in engine.generate(request) for token in output.token_ids]
            await engine.close()
            return tuple(token_ids)

        return asyncio.run(run())

    def refused(self, folder: Path) -> tuple[str, str]:
        """The error of a start where the other rank's checkpoint is at ``folder``."""
        group = start_group(folder)
        return self._load(group)

    def bereaved(self) -> tuple[str, str]:
        """The error of a start during which the other rank is killed."""
        group = start_group(FOLDER)
        os.kill(group.infos[1].pid, signal.SIGKILL)
        return self._load(group)

    def _load(self, group: WorkerGroup) -> tuple[str, str]:
        try:
            LLMEngine.from_pretrained(FOLDER, CONFIG, None, group.ranks, group.lead)
        except LacunaError as error:
            return type(error).__name__, str(error)
        return "", ""


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
    (expected,) = alone.generate([PROMPT], SamplingParams(max_tokens=24))
    before = live_workers()
    assert ray.get(leader.generate.remote()) == expected.token_ids
    eventually(lambda: live_workers() == before)


def test_a_start_that_fails_names_the_rank_and_the_file(leader: Any, tmp_path: Path) -> None:
    kind, message = ray.get(leader.refused.remote(tmp_path / "nothing"))
    assert kind == "CheckpointError"
    assert message.startswith("rank 1 (pid ")
    assert f"{tmp_path / 'nothing'} does not exist" in message


def test_a_rank_that_dies_while_it_loads_is_named(leader: Any) -> None:
    kind, message = ray.get(leader.bereaved.remote())
    assert kind == "EngineDeadError"
    assert message.startswith("rank 1 (pid ")
    assert "has died" in message


def test_ranks_need_a_placement_group(service: Service) -> None:
    with pytest.raises(ConfigError, match="need a placement group"):
        start_group(FOLDER)
