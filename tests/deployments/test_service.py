"""deployments/service.py: admission, streaming, giving places back."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from dataclasses import replace

import pytest

from deployments import service as service_module
from deployments.messages import (
    Admission,
    AdmissionRequest,
    ChatMessage,
    GenerateCall,
    Job,
    Prompt,
    SequenceOutcome,
)
from deployments.service import GenerationService, add_usage, prompt_tokens
from deployments.strategy_choice import Arm
from engine.errors import DeadlineExceededError, EngineDeadError, InvalidRequestError, ModelNotFoundError
from engine.outputs import Usage
from engine.sampling_params import SamplingParams
from tests.deployments.fakes import FakeEngine, FakeRouter


def job(num_calls: int = 1, timeout_s: float = 30.0, model: str = "fake") -> Job:
    calls = tuple(
        GenerateCall(request_id=f"k-{index}", prompt=Prompt(text="hi"), sampling=SamplingParams())
        for index in range(num_calls)
    )
    return Job(request_id="r", key="k", model=model, calls=calls, timeout_s=timeout_s, num_choices=num_calls)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_complete_joins_increments_in_the_calls_order() -> None:
    router, engine = FakeRouter(), FakeEngine(["a", "b", "c"])
    completions = await GenerationService(router, {"fake": engine}).complete(job(3))
    await settle()
    assert [one.text for one in completions] == ["abc"] * 3
    assert completions[0].token_ids == (0, 1, 2)
    assert completions[0].usage.completion_tokens == 3
    assert [len(request.shapes) for request in router.admitted] == [3]
    assert router.released == ["k"]
    assert [outcome.replica for outcome in router.outcomes] == ["replica-0", "replica-1", "replica-2"]
    assert all(outcome.finished and outcome.usage.positions_computed == 24 for outcome in router.outcomes)


async def test_the_router_learns_who_asks_for_how_much() -> None:
    router = FakeRouter()
    await GenerationService(router, {"fake": FakeEngine()}).complete(replace(job(), api_key_name="alice"))
    (request,) = router.admitted
    assert request.api_key_name == "alice"
    assert (request.shapes[0].prompt_tokens, request.shapes[0].max_tokens) == (1, 128)
    assert prompt_tokens(Prompt(token_ids=(1, 2, 3))) == 3
    assert prompt_tokens(Prompt(messages=(ChatMessage("user", "x" * 30),))) == 11


async def test_an_experiments_arm_is_asked_for_and_reported() -> None:
    class Chooser:
        def choose(self, job: Job) -> Arm | None:
            return Arm("b", {"decoder": "factor"}) if job.user == "u" else None

    engine = FakeEngine()
    service = GenerationService(FakeRouter(), {"fake": engine}, Chooser())
    (completion,) = await service.complete(replace(job(), user="u"))
    assert completion.usage.strategy is not None
    assert (completion.usage.strategy.chosen_by, completion.usage.strategy.reason) == ("arm", "arm b")
    assert engine.calls[-1].strategy == {"decoder": "factor"}
    await service.complete(job())
    assert engine.calls[-1].strategy == {}


async def test_the_engine_gets_the_time_that_is_left() -> None:
    engine = FakeEngine()
    await GenerationService(FakeRouter(), {"fake": engine}).complete(job(timeout_s=9.0))
    assert engine.calls[0].timeout_s is not None
    assert 8.0 < engine.calls[0].timeout_s <= 9.0


async def test_unknown_models_are_refused_with_the_known_ones() -> None:
    service = GenerationService(FakeRouter(), {"fake": FakeEngine()})
    with pytest.raises(ModelNotFoundError, match=r"'nope'.*fake") as caught:
        await service.complete(job(model="nope"))
    assert caught.value.param == "model"


async def test_dropping_the_stream_aborts_and_releases() -> None:
    router, engine = FakeRouter(), FakeEngine(["x"] * 100, delay_s=0.01)
    stream = GenerationService(router, {"fake": engine}).stream(job(2))
    await anext(stream)
    assert engine.running
    await stream.aclose()
    await settle()
    assert not engine.running
    assert router.released == ["k"]


@pytest.mark.parametrize("error", [InvalidRequestError("bad", "prompt"), KeyError("bug")])
async def test_an_error_ends_the_job_and_releases(error: Exception) -> None:
    router, engine = FakeRouter(), FakeEngine(["x"] * 9, fail_after=1, error=error)
    with pytest.raises(type(error)):
        await GenerationService(router, {"fake": engine}).complete(job(2))
    await settle()
    assert not engine.running
    assert router.released == ["k"]


async def test_a_router_that_is_replaced_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "ROUTER_PAUSES_S", (0.01, 0.01))

    class Replaced(FakeRouter):
        losses = 2

        async def admit(self, request: AdmissionRequest) -> Admission:
            if self.losses:
                self.losses -= 1
                raise EngineDeadError("the router was killed")
            return await super().admit(request)

    router = Replaced()
    (completion,) = await GenerationService(router, {"fake": FakeEngine()}).complete(job())
    assert completion.text == "Hello world"
    router.losses = 3
    with pytest.raises(EngineDeadError):
        await GenerationService(router, {"fake": FakeEngine()}).complete(job())


async def test_what_the_router_says_of_passed_time_is_told() -> None:
    late = DeadlineExceededError("no turn came. missing: 2 CPU", "timeout_ms")
    with pytest.raises(DeadlineExceededError, match="missing: 2 CPU"):
        await GenerationService(FakeRouter(late, wait_s=0.1), {"fake": FakeEngine()}).complete(job(timeout_s=0.05))


async def test_time_passes_while_waiting_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "ROUTER_ANSWER_S", 0.0)
    router = FakeRouter(never=True)
    with pytest.raises(DeadlineExceededError, match="waited"):
        await GenerationService(router, {"fake": FakeEngine()}).complete(job(timeout_s=0.05))
    await settle()
    assert router.released == ["k"], "a place that was given at the last moment must not leak"


async def test_time_passes_while_running() -> None:
    engine = FakeEngine(["x"] * 100, delay_s=0.02)
    with pytest.raises(DeadlineExceededError):
        await GenerationService(FakeRouter(), {"fake": engine}).complete(job(timeout_s=0.1))
    assert not engine.running


async def test_release_runs_outside_the_requests_context() -> None:
    request_context: contextvars.ContextVar[str] = contextvars.ContextVar("request_context", default="none")
    seen = []

    class Router(FakeRouter):
        async def release(
            self, model: str, key: str, outcomes: Sequence[SequenceOutcome] = (), lost: Sequence[str] = ()
        ) -> None:
            seen.append(request_context.get())

    request_context.set("request")
    await GenerationService(Router(), {"fake": FakeEngine()}).complete(job())
    await settle()
    assert seen == ["none"]


async def test_health_asks_the_engine() -> None:
    service = GenerationService(
        FakeRouter(), {"good": FakeEngine(), "bad": FakeEngine(unhealthy=EngineDeadError("stuck"))}
    )
    assert await service.healthy("good")
    assert not await service.healthy("bad")
    with pytest.raises(ModelNotFoundError):
        await service.healthy("none")


async def test_a_sleeping_model_is_healthy_and_is_not_woken() -> None:
    router = FakeRouter()
    router.sleeping = True
    assert await GenerationService(router, {"m": FakeEngine(unhealthy=EngineDeadError("asked"))}).healthy("m")


def test_a_prompt_counts_once_for_all_its_choices() -> None:
    usages = [Usage(prompt_tokens=4, completion_tokens=2, forwards=1, denoising_steps=1, positions_computed=8)] * 4
    total = add_usage(usages, num_choices=2)
    assert total.prompt_tokens == 8
    assert total.completion_tokens == 8
    assert total.tokens_per_forward == 2.0
