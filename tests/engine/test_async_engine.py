"""The thread that owns the engine: consumers, cancellation, failure, closing. The network waits for the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from engine.async_engine import AsyncEngine
from engine.errors import ContextLengthError, EngineDeadError, InvalidRequestError, OverloadedError
from engine.outputs import RequestOutput
from engine.plan import IterationPlan, StepResult
from engine.sequence import GenerationRequest
from tests.helpers.engines import Outcome, Rig, ScriptedExecutor, drive, make_request, outcome, scripted

PATIENCE_S = 20


class GatedExecutor:
    """A scripted network whose forwards start when the test says so; ``open`` lets all further ones pass."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.script = ScriptedExecutor(fails_at=fails_at)
        self.begun = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)
        self._opened = False

    def execute(self, plan: IterationPlan) -> StepResult:
        self.begun.release()
        if not self._opened:
            assert self._gate.acquire(timeout=PATIENCE_S)
        return self.script.execute(plan)

    def pass_one(self) -> None:
        self._gate.release()

    def open(self) -> None:
        self._opened = True
        self._gate.release()

    async def wait_until_begun(self) -> None:
        """Until the next forward has been planned and waits at the gate."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE_S)


@asynccontextmanager
async def running(rig: Rig, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = AsyncEngine(rig.engine, **options)
    engine.start()
    try:
        yield engine
    finally:
        if isinstance(rig.executor, GatedExecutor):
            rig.executor.open()
        await engine.close()


async def consume(engine: AsyncEngine, one: GenerationRequest) -> Outcome:
    return outcome([output async for output in engine.generate(one)])


async def until_idle(engine: AsyncEngine) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while engine.stats().num_running or engine.stats().num_waiting:  # noqa: ASYNC110 (a thread's snapshot)
            await asyncio.sleep(0.001)


async def test_concurrent_consumers_each_get_their_own_completion() -> None:
    requests = [make_request(f"r{n}", [65 + n] * (n + 1), max_tokens=3 + n) for n in range(9)]
    expected = drive(scripted().engine, requests)
    rig = scripted()
    async with running(rig) as engine:
        outcomes = await asyncio.gather(*(consume(engine, one) for one in requests))
        assert dict(zip((one.request_id for one in requests), outcomes, strict=True)) == expected
        await until_idle(engine)
    rig.check_empty()


async def test_increments_arrive_while_the_request_still_runs() -> None:
    executor = GatedExecutor()
    rig = scripted(executor=executor)
    async with running(rig) as engine, aclosing(engine.generate(make_request("a", [65] * 4, max_tokens=8))) as outputs:
        executor.pass_one()
        executor.pass_one()
        first = await anext(outputs)
        assert (len(first.token_ids), first.finished) == (4, False)
        executor.open()
        assert [len(output.token_ids) async for output in outputs] == [4]


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_dropping_the_consumer_frees_the_slot_before_the_next_forward_is_planned(how: str) -> None:
    executor = GatedExecutor()
    rig = scripted(executor=executor, max_num_seqs=1)
    async with running(rig) as engine:
        outputs = engine.generate(make_request("dropped", [65] * 4, max_tokens=40))
        first = asyncio.ensure_future(anext(outputs))
        await executor.wait_until_begun()
        follower = asyncio.ensure_future(consume(engine, make_request("next", [66] * 4, max_tokens=4)))
        await asyncio.sleep(0)  # the follower's request is in the inbox
        if how == "cancel":
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        else:
            executor.pass_one()
            executor.pass_one()
            await first
            await executor.wait_until_begun()
            await executor.wait_until_begun()
            await outputs.aclose()
        executor.pass_one()
        await executor.wait_until_begun()  # the first forward that is planned after the consumer has gone
        stats = rig.engine.stats()
        assert (stats.num_running, stats.num_waiting, stats.num_free_slots) == (1, 0, 0)
        executor.open()
        assert (await follower).finish_reason == "length"
        admitted = [int(one.tokens[0]) for plan in executor.script.plans for one in plan.admitted]
        assert admitted == [65, 66]
        await until_idle(engine)
    rig.check_empty()


async def test_a_waiting_request_can_be_dropped() -> None:
    executor = GatedExecutor()
    rig = scripted(executor=executor, max_num_seqs=1)
    async with running(rig) as engine:
        runs = asyncio.ensure_future(consume(engine, make_request("runs", [65] * 4, max_tokens=4)))
        await executor.wait_until_begun()
        waits = asyncio.ensure_future(consume(engine, make_request("waits", [66] * 4, max_tokens=4)))
        await asyncio.sleep(0)
        waits.cancel()
        executor.open()
        assert (await runs).finish_reason == "length"
        await until_idle(engine)
    assert all(one.tokens[0] == 65 for plan in executor.script.plans for one in plan.admitted)
    rig.check_empty()


async def test_an_engine_that_fails_ends_every_request_and_is_unhealthy() -> None:
    executor = GatedExecutor(fails_at=1)
    async with running(scripted(executor=executor, max_num_seqs=1)) as engine:
        engine.check_health()
        consumers = [
            asyncio.ensure_future(consume(engine, make_request(name, [65], max_tokens=20))) for name in ("a", "b", "c")
        ]
        await executor.wait_until_begun()
        executor.open()
        for result in await asyncio.gather(*consumers, return_exceptions=True):
            assert isinstance(result, EngineDeadError)
            assert "the device is gone" in str(result)
        with pytest.raises(EngineDeadError, match="the device is gone"):
            engine.check_health()
        with pytest.raises(EngineDeadError):
            await consume(engine, make_request("late", [65], max_tokens=2))


async def test_a_forward_that_hangs_is_unhealthy() -> None:
    executor = GatedExecutor()
    async with running(scripted(executor=executor), stall_timeout_s=0.0) as engine:
        consumer = asyncio.ensure_future(consume(engine, make_request("a", [65], max_tokens=2)))
        await executor.wait_until_begun()
        await asyncio.sleep(0.01)
        with pytest.raises(EngineDeadError, match="has been running"):
            engine.check_health()
        executor.open()
        await consumer
        await until_idle(engine)
        engine.check_health()


async def test_closing_ends_running_requests() -> None:
    executor = GatedExecutor()
    engine = AsyncEngine(scripted(executor=executor).engine)
    engine.start()
    consumer = asyncio.ensure_future(consume(engine, make_request("a", [65], max_tokens=40)))
    await executor.wait_until_begun()
    closing = asyncio.ensure_future(engine.close())
    await asyncio.sleep(0)
    executor.open()
    await closing
    with pytest.raises(EngineDeadError, match="closed"):
        await consumer
    with pytest.raises(EngineDeadError, match="closed"):
        engine.check_health()


async def test_a_request_that_slips_in_while_the_engine_ends_is_answered() -> None:
    """The health check passes, then the thread ends before the request is in its inbox."""
    rig = scripted()
    engine = AsyncEngine(rig.engine)
    engine.start()
    healthy = engine.check_health

    def check_then_end() -> None:
        healthy()
        closer = threading.Thread(target=lambda: asyncio.run(engine.close()))
        closer.start()
        closer.join()

    engine.check_health = check_then_end  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(EngineDeadError):
            await consume(engine, make_request("a", [65], max_tokens=2))


async def test_errors_of_a_request_reach_its_consumer_alone() -> None:
    executor = GatedExecutor()
    rig = scripted(executor=executor, max_num_seqs=1, max_queue_len=1)
    async with running(rig) as engine:
        runs = asyncio.ensure_future(consume(engine, make_request("runs", [65] * 4, max_tokens=8)))
        await executor.wait_until_begun()
        with pytest.raises(InvalidRequestError, match="empty"):
            await consume(engine, make_request("empty", [], max_tokens=1))
        with pytest.raises(ContextLengthError):
            await consume(engine, make_request("long", [65], max_tokens=1000))
        waits = asyncio.ensure_future(consume(engine, make_request("waits", [66] * 4, max_tokens=4)))
        await asyncio.sleep(0)
        too_many = asyncio.ensure_future(consume(engine, make_request("too many", [67], max_tokens=1)))
        same_id = asyncio.ensure_future(consume(engine, make_request("runs", [68], max_tokens=1)))
        await asyncio.sleep(0)
        executor.open()
        with pytest.raises(OverloadedError):
            await too_many
        with pytest.raises(InvalidRequestError, match="already in use"):
            await same_id
        assert (await runs).finish_reason == (await waits).finish_reason == "length"
        engine.check_health()


async def test_dropping_a_refused_twin_of_a_running_request_leaves_that_one_alone() -> None:
    executor = GatedExecutor()
    async with running(scripted(executor=executor)) as engine:
        runs = asyncio.ensure_future(consume(engine, make_request("same", [65] * 4, max_tokens=8)))
        await executor.wait_until_begun()
        twin = asyncio.ensure_future(consume(engine, make_request("same", [66] * 4, max_tokens=8)))
        await asyncio.sleep(0)
        twin.cancel()
        await asyncio.sleep(0)
        executor.open()
        async with asyncio.timeout(PATIENCE_S):
            assert len((await runs).token_ids) == 8


async def test_what_it_says_about_itself_is_the_engines() -> None:
    rig = scripted()
    engine = AsyncEngine(rig.engine)
    assert engine.spec is rig.engine.spec
    assert engine.tokenizer is rig.engine.tokenizer
    assert engine.config is rig.engine.config
    assert engine.max_model_len == 64
    assert engine.strategy({"cache": "none"}) == rig.engine.strategy({"cache": "none"})
    assert engine.describe_strategies() == rig.engine.describe_strategies()
    with pytest.raises(EngineDeadError):
        engine.check_health()


async def test_the_final_increment_carries_the_usage() -> None:
    async with running(scripted()) as engine:
        outputs: list[RequestOutput] = [one async for one in engine.generate(make_request("a", [65] * 4, max_tokens=8))]
    assert [output.finished for output in outputs] == [False, True]
    assert outputs[-1].usage.completion_tokens == 8
    assert outputs[-1].usage.prompt_tokens == 4


class Companions:
    """Followers that count their heartbeats; ``fails`` makes them miss one."""

    def __init__(self) -> None:
        self.beats = threading.Semaphore(0)
        self.fails = False
        self.closed_with: list[BaseException | None] = []

    def beat(self) -> None:
        self.beats.release()
        if self.fails:
            raise RuntimeError("rank 1 does not answer")

    def close(self, failure: BaseException | None) -> None:
        self.closed_with.append(failure)


@pytest.fixture
def fast_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.async_engine.BEAT_S", 0.001)


@pytest.mark.usefixtures("fast_beats")
async def test_followers_hear_from_an_idle_engine_and_of_its_end() -> None:
    followers = Companions()
    async with running(scripted(), followers=followers) as engine:
        for _ in range(3):
            assert await asyncio.to_thread(followers.beats.acquire, timeout=PATIENCE_S)
        assert (await consume(engine, make_request("a", [65], max_tokens=4))).finish_reason == "length"
        assert await asyncio.to_thread(followers.beats.acquire, timeout=PATIENCE_S)
        assert followers.closed_with == []
    assert followers.closed_with == [None]


@pytest.mark.usefixtures("fast_beats")
async def test_a_missed_heartbeat_ends_the_engine() -> None:
    followers = Companions()
    followers.fails = True
    async with running(scripted(), followers=followers) as engine:
        assert await asyncio.to_thread(followers.beats.acquire, timeout=PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            while not followers.closed_with:  # noqa: ASYNC110 (the engine's thread sets it)
                await asyncio.sleep(0.001)
        with pytest.raises(EngineDeadError, match="rank 1 does not answer"):
            engine.check_health()
    assert [str(error) for error in followers.closed_with] == ["rank 1 does not answer"]


async def test_requests_end_at_once_when_the_engine_is_declared_dead_during_a_forward() -> None:
    executor = GatedExecutor()
    async with running(scripted(executor=executor, max_num_seqs=1)) as engine:
        consumers = [asyncio.ensure_future(consume(engine, make_request(name, [65], max_tokens=4))) for name in "ab"]
        await executor.wait_until_begun()
        engine.fail(RuntimeError("rank 1 died"))
        for consumer in consumers:
            with pytest.raises(EngineDeadError, match="rank 1 died"):
                await asyncio.wait_for(consumer, PATIENCE_S)
        with pytest.raises(EngineDeadError, match="rank 1 died"):
            await consume(engine, make_request("late", [65], max_tokens=4))
        executor.open()  # the forward comes back after all: nobody is left to hear of it
