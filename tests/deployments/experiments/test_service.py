"""Experiments in the path of requests: the arm's strategy runs, its outcome is recorded, shadows delay nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.config import AppConfig
from deployments.experiments.controller import ExperimentController
from deployments.experiments.ledger.reader import LedgerReader
from deployments.experiments.outcome import Outcome
from deployments.experiments.service import ExperimentService
from deployments.messages import Admission, AdmissionRequest, GenerateCall, Job, Prompt
from deployments.telemetry.jobs import JobSpans
from deployments.telemetry.sampling import FollowLinks, by_ratio
from engine.errors import DeadlineExceededError, InvalidRequestError, OverloadedError
from engine.sampling_params import SamplingParams
from tests.deployments.fakes import FakeEngine, FakeRouter
from tests.helpers.traces import SAMPLED, UNSAMPLED, Recorder, said, trace_id

A, B = {"decoder": "low_confidence"}, {"decoder": "threshold", "threshold": 0.8}


class Setup:
    """A service with one experiment over a fake engine."""

    def __init__(
        self, folder: Path, engine: FakeEngine, router: FakeRouter, spans: JobSpans | None = None, **fields: Any
    ) -> None:
        arms = [{"name": "a", "strategy": A}, {"name": "b", "strategy": B}]
        settings = {
            "models": "fake=/x",
            "ledger": f"sqlite:///{folder}/ledger.sqlite3",
            "experiments": [{"name": "speed", "arms": arms, "override": True} | fields],
        }
        self.config = AppConfig.parse(settings)
        self.engine, self.router = engine, router
        self.controller = ExperimentController(self.config)
        self.service = ExperimentService(router, {"fake": engine}, self.controller, spans)

    async def outcomes(self) -> list[Outcome]:
        """Everything that was recorded; ends the service."""
        await self.service.close()
        reader = LedgerReader(self.config.ledger)
        return [one.outcome for one in reader.observations("speed", self.config.experiments[0].revision)]


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Setup] = []

    def build(engine: FakeEngine | None = None, router: FakeRouter | None = None, **fields: Any) -> Setup:
        made.append(Setup(tmp_path, engine or FakeEngine(["x", "y"]), router or FakeRouter(), **fields))
        return made[-1]

    yield build
    for one in made:
        await one.service.close()


def job(key: str = "k", strategy: dict[str, object] | None = None, *, num_calls: int = 1, **fields: Any) -> Job:
    calls = tuple(
        GenerateCall(
            request_id=f"{key}-{index}", prompt=Prompt(text="hi"), sampling=SamplingParams(), strategy=strategy or {}
        )
        for index in range(num_calls)
    )
    values: dict[str, Any] = {"request_id": f"cmpl-{key}", "key": key, "model": "fake", "calls": calls}
    return Job(**values | {"timeout_s": 9.0, "num_choices": num_calls} | fields)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_arms_strategy_runs_and_its_outcome_is_recorded(setup: Any) -> None:
    one = setup(FakeEngine(["x", "y"], delay_s=0.01))
    request = job(user="ann", num_calls=2)
    assignment = one.service.assignment(request)
    assert assignment is not None
    completions = await one.service.complete(request)
    assert [completion.text for completion in completions] == ["xy", "xy"]
    assert [call.strategy for call in one.engine.calls] == [assignment.strategy] * 2
    (found,) = await one.outcomes()
    assert (found.response_id, found.arm, found.assigned_by) == ("cmpl-k", assignment.arm, "hash")
    assert (found.sequences, found.prompt_tokens, found.completion_tokens, found.forwards) == (2, 3, 4, 4)
    assert found.first_s is not None
    assert 0 <= found.queue_s <= found.first_s <= found.total_s
    assert (found.finish_reason, found.error) == ("stop", "")
    assert (found.strategy_name, found.strategy) == ("fast", {"threshold": 0.5}), "as the engine says it was"
    assert "ann" not in found.unit


async def test_time_in_the_queue_is_told_apart(setup: Any) -> None:
    one = setup(router=FakeRouter(wait_s=0.05))
    await one.service.complete(job())
    (found,) = await one.outcomes()
    assert 0.05 <= found.queue_s <= found.total_s


async def test_a_strategy_of_its_own_is_left_alone(setup: Any) -> None:
    one = setup()
    await one.service.complete(job(strategy={"decoder": "own"}))
    assert one.engine.calls[0].strategy == {"decoder": "own"}
    assert await one.outcomes() == []


async def test_an_arm_that_is_asked_for(setup: Any) -> None:
    one = setup()
    await one.service.complete(job(strategy={"arm": "b"}))
    assert one.engine.calls[0].strategy == B
    with pytest.raises(InvalidRequestError, match="possible are: speed/a, speed/b"):
        await one.service.complete(job(strategy={"arm": "c"}))
    with pytest.raises(InvalidRequestError, match="is a text"):
        await one.service.complete(job(strategy={"arm": 3}))
    (found,) = await one.outcomes()
    assert found.assigned_by == "override"


@pytest.mark.parametrize(
    ("error", "recorded"),
    [(DeadlineExceededError("late"), ["DeadlineExceededError"]), (InvalidRequestError("bad", "prompt"), [])],
)
async def test_failures_are_recorded_unless_the_request_is_wrong(
    setup: Any, error: Exception, recorded: list[str]
) -> None:
    one = setup(FakeEngine(["x", "y"], fail_after=1, error=error))
    with pytest.raises(type(error)):
        await one.service.complete(job())
    assert [found.error for found in await one.outcomes()] == recorded


async def test_a_client_that_leaves_is_recorded_as_that(setup: Any) -> None:
    one = setup(FakeEngine(["x"] * 100, delay_s=0.01))
    stream = one.service.stream(job())
    await anext(stream)
    await stream.aclose()
    (found,) = await one.outcomes()
    assert (found.error, found.finish_reason) == ("cancelled", "")
    assert not one.engine.running


async def test_a_client_that_leaves_after_the_last_increment_has_its_answer(setup: Any) -> None:
    one = setup(FakeEngine(["x"]))
    async with aclosing(one.service.stream(job())) as stream:
        await anext(stream)
    (found,) = await one.outcomes()
    assert found.error == ""


async def test_a_broken_ledger_fails_nobody(setup: Any, tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"no database" * 999)
    one = setup()
    assert [completion.text for completion in await one.service.complete(job())] == ["xy"]


async def test_the_shadow_runs_after_the_answer_with_the_lowest_priority(setup: Any) -> None:
    one = setup(shadow="b")
    await one.service.complete(job(strategy={"arm": "a"}))
    await settle()
    live, shadow = one.engine.calls
    assert (live.strategy, shadow.strategy) == (A, B)
    assert shadow.request_id != live.request_id
    assert one.router.admitted[1].is_spare
    assert one.router.admitted[1].priority > 10**9
    assert {(found.arm, found.assigned_by, found.response_id) for found in await one.outcomes()} == {
        ("a", "override", "cmpl-k"),
        ("b", "shadow", "cmpl-k"),
    }


@pytest.mark.parametrize(("parent", "kept"), [(SAMPLED, True), (UNSAMPLED, False)])
async def test_a_shadow_has_a_trace_of_its_own_that_links_to_the_original(setup: Any, parent: str, kept: bool) -> None:
    recorder = Recorder(FollowLinks(by_ratio(0.0)))
    one = setup(shadow="b", spans=JobSpans(recorder.provider.get_tracer("t")))
    original = job(strategy={"arm": "a"})
    await one.service.complete(replace(original, calls=(replace(original.calls[0], traceparent=parent),)))
    await settle()
    assert len(recorder.spans) == (2 if kept else 0)
    if not kept:
        return
    live, shadow = recorder.spans
    assert f"{trace_id(live):032x}" == parent[3:35]
    assert trace_id(shadow) != trace_id(live)
    assert shadow.parent is None
    assert [f"{link.context.span_id:016x}" for link in shadow.links] == [parent[36:52]]
    assert (said(live)["lacuna.shadow"], said(shadow)["lacuna.shadow"]) == (False, True)
    assert said(shadow)["lacuna.strategy.chosen_by"] == "explicit"


async def test_a_shadow_that_fails_is_only_recorded(setup: Any) -> None:
    class Broken(FakeEngine):
        async def generate(self, call: GenerateCall, replica: str = "") -> Any:
            if call.request_id.endswith("shadow"):
                raise DeadlineExceededError("late")
            async for item in super().generate(call, replica):
                yield item

    one = setup(Broken(["x"]), shadow="b")
    await one.service.complete(job(strategy={"arm": "a"}))
    await settle()
    found = {outcome.assigned_by: outcome.error for outcome in await one.outcomes()}
    assert found == {"override": "", "shadow": "DeadlineExceededError"}


async def test_without_a_free_place_there_is_no_shadow(setup: Any) -> None:
    class FullRouter(FakeRouter):
        async def admit(self, request: AdmissionRequest) -> Admission:
            if request.is_spare:
                raise OverloadedError("no place is free")
            return await super().admit(request)

    one = setup(router=FullRouter(), shadow="b")
    await one.service.complete(job(strategy={"arm": "a"}))
    await settle()
    assert one.service.shadows.stats.dropped == 1
    assert [found.assigned_by for found in await one.outcomes()] == ["override"]


async def test_shadows_end_when_a_live_request_has_to_wait(setup: Any) -> None:
    class OnePlace(FakeRouter):
        """The second request waits until the first has left."""

        def __init__(self) -> None:
            super().__init__()
            self.place = asyncio.Lock()

        async def admit(self, request: AdmissionRequest) -> Admission:
            await self.place.acquire()
            return await super().admit(request)

        async def release(self, model: str, key: str, *details: Any) -> None:
            self.place.release()

    class SlowShadow(FakeEngine):
        async def generate(self, call: GenerateCall, replica: str = "") -> Any:
            self.delay_s = 30.0 if call.request_id.endswith("shadow") else 0.0
            async for item in super().generate(call, replica):
                yield item

    one = setup(SlowShadow(["x"]), OnePlace(), shadow="b")
    await one.service.complete(job("k1", {"arm": "a"}))
    await settle()
    assert any(name.endswith("shadow") for name in one.engine.running)
    async with asyncio.timeout(5):
        await one.service.complete(job("k2", {"arm": "b"}))
    assert one.service.shadows.stats.dropped == 1


async def test_a_comparison_takes_part_in_nothing_and_keeps_each_strategy(setup: Any) -> None:
    one = setup(shadow="b")
    base = job(num_calls=2, num_choices=1, is_comparison=True)
    calls = (base.calls[0], replace(base.calls[1], strategy=B))
    await one.service.complete(replace(base, calls=calls))
    assert [call.strategy for call in one.engine.calls] == [{}, B]
    assert await one.outcomes() == []


async def test_a_goal_gives_way_to_the_arm_and_the_answer_says_so(setup: Any) -> None:
    one = setup()
    (found,) = await one.service.complete(job(strategy={"goal": "fast", "arm": "b"}))
    assert one.engine.calls[0].strategy == B
    assert found.usage.strategy is not None
    assert (found.usage.strategy.chosen_by, found.usage.strategy.reason) == ("arm", "arm speed/b")
