"""deployments/model_router.py: waiting, waking, giving up, replicas that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import model_router
from deployments.admission import QueueLimits
from deployments.messages import Admission, AdmissionRequest, SequenceOutcome
from deployments.model_router import ModelRouter
from engine.errors import DeadlineExceededError, EngineDeadError, OverloadedError
from engine.outputs import Usage
from engine.work import WorkShape
from tests.deployments.fakes import FakeFleet

SHAPE = WorkShape(prompt_tokens=8, max_tokens=32, block_length=8, cache="dual", strategy="s")


def ask(key: str, cost: int = 1, timeout_s: float = 30.0, **more: Any) -> AdmissionRequest:
    return AdmissionRequest(key=key, model="m", shapes=(SHAPE,) * cost, priority=0, timeout_s=timeout_s, **more)


def router_of(fleet: FakeFleet, capacity: int = 1, depth: int = 4, queue_timeout_s: float = 60.0) -> ModelRouter:
    return ModelRouter(fleet, capacity, QueueLimits(max_depth=depth), queue_timeout_s)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    monkeypatch.setattr(model_router, "WATCH_S", 0.02)
    monkeypatch.setattr(model_router, "WATCH_FAST_S", 0.02)
    monkeypatch.setattr(model_router, "LEASE_GRACE_S", 0.05)
    return FakeFleet(["x"])


@pytest.fixture
async def router(fleet: FakeFleet) -> AsyncGenerator[ModelRouter]:
    made = router_of(fleet)
    yield made
    await made.close()


async def soon(condition: Any) -> None:
    async with asyncio.timeout(2):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def test_admits_waits_and_wakes(router: ModelRouter) -> None:
    assert (await router.admit(ask("a"))).replicas == ("x",)
    waiting = asyncio.create_task(router.admit(ask("b")))
    await soon(lambda: router.load.queued == 1)
    assert router.load.in_flight == 1
    router.release("a")
    admission = await asyncio.wait_for(waiting, 1)
    assert admission.waited_s > 0
    router.release("b")
    assert (router.load.queued, router.load.in_flight, router.load.work) == (0, 0, 0)


async def test_nothing_starts_before_a_replica_is_there(fleet: FakeFleet, router: ModelRouter) -> None:
    fleet.ids = []
    waiting = asyncio.create_task(router.admit(ask("a")))
    await soon(lambda: fleet.asked > 2)
    assert not waiting.done()
    assert router.load.queued == 1
    fleet.ids = ["new"]
    assert (await asyncio.wait_for(waiting, 1)).replicas == ("new",)


async def test_a_lost_replica_takes_its_sequences_along(fleet: FakeFleet, router: ModelRouter) -> None:
    await router.admit(ask("a"))
    fleet.ids = ["y"]
    router.lost("x")
    assert router.load.in_flight == 0
    again = await asyncio.wait_for(router.admit(ask("a~1", resumed=True)), 1)
    assert again.replicas == ("y",)
    router.release("a")
    assert router.load.in_flight == 1
    router.release("a~1")
    assert router.load.in_flight == 0


async def test_replicas_that_cannot_be_asked_keep_their_work(fleet: FakeFleet, router: ModelRouter) -> None:
    await router.admit(ask("a"))
    fleet.error = EngineDeadError("a broken line")
    before = fleet.asked
    await soon(lambda: fleet.asked > before + 1)
    assert router.load.in_flight == 1
    assert router.load.replicas == 1


async def test_sequences_of_a_request_are_spread(fleet: FakeFleet) -> None:
    fleet.ids = ["x", "y"]
    router = router_of(fleet, capacity=4)
    admission = await router.admit(ask("a", cost=4))
    assert sorted(admission.replicas) == ["x", "x", "y", "y"]
    assert admission.pressure == pytest.approx(0.5)
    await router.close()


async def test_a_full_queue_refuses(fleet: FakeFleet) -> None:
    router = router_of(fleet, depth=1)
    await router.admit(ask("a"))
    waiting = asyncio.create_task(router.admit(ask("b")))
    await soon(lambda: router.load.queued == 1)
    with pytest.raises(OverloadedError) as caught:
        await router.admit(ask("c"))
    assert caught.value.retry_after_s >= 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert router.load.queued == 0
    await router.close()


async def test_a_cancelled_wait_leaves_the_queue(router: ModelRouter) -> None:
    await router.admit(ask("a"))
    waiting = asyncio.create_task(router.admit(ask("b")))
    await soon(lambda: router.load.queued == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert router.load.queued == 0
    router.release("a")
    assert isinstance(await asyncio.wait_for(router.admit(ask("c")), 1), Admission)


async def test_waiting_ends_with_the_deadline(router: ModelRouter) -> None:
    await router.admit(ask("a"))
    with pytest.raises(DeadlineExceededError) as caught:
        await router.admit(ask("b", timeout_s=0.05))
    assert caught.value.param == "timeout_ms"
    assert router.load.queued == 0


async def test_waiting_ends_with_the_servers_patience(fleet: FakeFleet) -> None:
    router = router_of(fleet, queue_timeout_s=0.05)
    await router.admit(ask("a"))
    with pytest.raises(DeadlineExceededError, match=r"0\.05 s.*queue_timeout_s") as caught:
        await router.admit(ask("b"))
    assert caught.value.param == "queue_timeout_s"
    resumed = asyncio.create_task(router.admit(ask("c", resumed=True)))
    await asyncio.sleep(0.1)
    assert not resumed.done(), "what had started waits as long as the request lives"
    router.release("a")
    await asyncio.wait_for(resumed, 1)
    await router.close()


async def test_waiting_in_vain_says_why_no_replica_runs(fleet: FakeFleet) -> None:
    fleet.ids, fleet.reason = (), "2 ranks of 1 CPU each do not fit"
    router = router_of(fleet, queue_timeout_s=0.05)
    with pytest.raises(DeadlineExceededError, match=r"later\. No replica of the model runs: 2 ranks of 1 CPU each do"):
        await router.admit(ask("a"))
    await router.close()


async def test_a_lost_ingress_does_not_hold_its_place(router: ModelRouter) -> None:
    await router.admit(ask("lost", timeout_s=0.05))
    assert (await asyncio.wait_for(router.admit(ask("next")), 2)).replicas == ("x",)


async def test_finished_sequences_teach_rates_and_expectations(router: ModelRouter) -> None:
    before = router.load.positions_per_s
    await router.admit(ask("a"))
    predicted = router.load.work
    usage = Usage(completion_tokens=32, forwards=4, positions_computed=10**6)
    router.release("a", [SequenceOutcome("x", SHAPE, usage, finished=True)])
    assert router.load.positions_per_s > before
    await router.admit(ask("b"))
    assert router.load.work < predicted, "8 tokens per forward are less work than was expected"


async def test_releasing_twice_does_nothing(router: ModelRouter) -> None:
    router.release("never")
    await router.admit(ask("a"))
    router.release("a")
    router.release("a")
    assert router.load.in_flight == 0


Move = tuple[str, int]
moves = st.lists(
    st.tuples(st.sampled_from(["admit", "release", "cancel", "lose", "find", "tick"]), st.integers(0, 7)), max_size=60
)


@given(moves, st.integers(1, 3))
def test_whatever_happens_every_place_comes_back(steps: list[Move], capacity: int) -> None:
    asyncio.run(asyncio.wait_for(play(steps, capacity), 20))


async def play(steps: list[Move], capacity: int) -> None:
    """Requests of 1 to 3 sequences come, go, give up and lose replicas; after the last one everything is free."""
    fleet = FakeFleet(["x", "y"])
    router = router_of(fleet, capacity, depth=100)
    tasks: dict[str, asyncio.Task[Admission]] = {}
    for number, (move, choice) in enumerate(steps):
        key = f"k{choice}-{number}"
        if move == "admit":
            tasks[key] = asyncio.create_task(router.admit(ask(key, cost=choice % 3 + 1)))
        elif move in ("release", "cancel") and tasks:
            key = sorted(tasks)[choice % len(tasks)]
            task = tasks.pop(key)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            router.release(key)
        elif move == "lose":
            router.lost("xy"[choice % 2])
        elif move == "find":
            router._lose(router._pool.set_live(fleet.ids, router._now()))
        await asyncio.sleep(0)
        running = {key for replica in router._pool.replicas.values() for key in replica.shares}
        assert running <= router._queue.running.keys()
        placed = sum(replica.running for replica in router._pool.replicas.values())
        assert placed == router.load.in_flight
        assert placed <= max(router._pool.capacity, 3), "more than fits only where one request alone is larger"
    router._lose(router._pool.set_live(fleet.ids, router._now()))
    while tasks:
        for _ in range(5):
            await asyncio.sleep(0)
        ready = [key for key, task in tasks.items() if task.done()]
        assert ready, "somebody waits although there is room"
        for key in ready:
            tasks.pop(key)
            router.release(key)
    assert (router.load.queued, router.load.in_flight, router.load.work) == (0, 0, 0)
    assert all(not replica.shares for replica in router._pool.replicas.values())
    await router.close()


async def test_the_report_counts_what_happened(fleet: FakeFleet) -> None:
    router = router_of(fleet, depth=1, queue_timeout_s=0.05)
    await router.admit(ask("a"))
    for refusal, more in [
        (DeadlineExceededError, {}),
        (DeadlineExceededError, {"timeout_s": 0.02}),
        (OverloadedError, {"is_spare": True}),
    ]:
        with pytest.raises(refusal):
            await router.admit(ask("b", **more))
    waiting = asyncio.create_task(router.admit(ask("c", timeout_s=0.04, api_key_name="key")))
    await soon(lambda: router.load.queued == 1)
    with pytest.raises(OverloadedError):
        await router.admit(ask("d"))
    with pytest.raises(DeadlineExceededError):
        await waiting
    router.lost("x")
    router.lost("x")
    report = router.report
    assert report.refused == {
        "queue_full": 1,
        "key_share": 0,
        "no_spare_place": 1,
        "queue_timeout": 1,
        "deadline": 2,
    }
    assert (report.admitted, report.lost_replicas, report.wanted_replicas) == (1, 1, None)
    await router.close()


async def test_the_report_counts_replicas_that_went_and_places_that_expired(
    fleet: FakeFleet, router: ModelRouter
) -> None:
    await router.admit(ask("a", timeout_s=0.01))
    await soon(lambda: router.report.expired_leases == 1)
    fleet.ids = []
    await soon(lambda: router.report.lost_replicas == 1)
