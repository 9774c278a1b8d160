"""deployments/router.py: one queue per model, refusals as values, statistics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.placement import GroupPlacement
from deployments import router as router_module
from deployments.config import AppConfig
from deployments.messages import AdmissionRequest
from deployments.router import Router
from engine.errors import DeadlineExceededError, ModelNotFoundError, OverloadedError
from engine.work import WorkShape
from tests.deployments.fakes import FakeFleet

SHAPE = WorkShape(prompt_tokens=8, max_tokens=32, block_length=8, cache="dual")
CONFIG = AppConfig.parse(
    {
        "models": [
            {"id": "m", "path": "/m", "autoscaling": {"min_replicas": 0, "max_replicas": 3}},
            {"id": "other", "path": "/o"},
        ],
        "max_queue_depth": 1,
        "queue_timeout_s": 0.05,
    }
)


def ask(key: str, model: str = "m") -> AdmissionRequest:
    return AdmissionRequest(key=key, model=model, shapes=(SHAPE,), priority=0, timeout_s=30.0)


@pytest.fixture
async def router(monkeypatch: pytest.MonkeyPatch) -> Router:
    monkeypatch.setattr(router_module, "EngineFleet", lambda fleet, _: fleet)
    placement = GroupPlacement(world_size=1, num_cpus=1)
    fleets: Any = {"m": FakeFleet(["x"]), "other": FakeFleet(["y"])}
    return Router(CONFIG, {"m": 1, "other": 1}, dict.fromkeys(fleets, placement), fleets)


async def test_models_do_not_share_places(router: Router) -> None:
    first, second = await router.admit(ask("a")), await router.admit(ask("b", "other"))
    assert (first.replicas, second.replicas) == (("x",), ("y",))  # type: ignore[union-attr]


async def test_refusals_are_values(router: Router) -> None:
    assert isinstance(await router.admit(ask("x", "none")), ModelNotFoundError)
    await router.admit(ask("a"))
    assert isinstance(await router.admit(ask("b")), DeadlineExceededError)
    waiting = asyncio.create_task(router.admit(ask("c")))
    await asyncio.sleep(0)
    assert isinstance(await router.admit(ask("d")), OverloadedError)
    await waiting


async def test_statistics(router: Router) -> None:
    assert (await router.record_autoscaling_stats())["in_flight"] == 0.0
    assert await router.asleep("m"), "nothing is known of replicas yet, and nobody asks"
    await router.admit(ask("a"))
    stats = await router.record_autoscaling_stats()
    assert (stats["queue_depth"], stats["in_flight"]) == (0.0, 1.0)
    assert stats["predicted_work_s"] > 0
    assert stats["wanted_replicas:EngineReplica-m"] == 1.0
    assert "wanted_replicas:EngineReplica-other" not in stats, "its number is fixed"
    assert not await router.asleep("m")
    await router.release("m", "a")
    assert (await router.record_autoscaling_stats())["wanted_replicas:EngineReplica-m"] == 0.0


async def test_release_of_unknown_keys_is_harmless(router: Router) -> None:
    before = await router.record_autoscaling_stats()
    await router.release("m", "never")
    await router.release("none", "never")
    assert await router.record_autoscaling_stats() == before


async def test_samples_of_all_models(router: Router) -> None:
    await router.admit(ask("a"))
    samples = await router.metrics()
    in_flight = {one.labels["model"]: one.value for one in samples if one.name == "router_in_flight"}
    assert in_flight == {"m": 1, "other": 0}
    assert [one.labels["model"] for one in samples if one.name == "router_wanted_replicas"] == ["m"]
