"""Ranks in lockstep, over a channel of queues: what the leader sends, what a follower does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any, cast

import pytest

from engine.channel import ControlChannel
from engine.lockstep import LeadingExecutor, follow
from engine.model_runner import ModelRunner
from engine.telemetry import EngineTelemetry, RankTelemetry
from tests.helpers.engines import ScriptedExecutor, drive, make_request, scripted
from tests.helpers.traces import Recorder, said, span_id

PATIENCE_S = 20


class QueueChannel:
    """One leader and one follower in one process."""

    def __init__(self) -> None:
        self.messages: Queue[bytes] = Queue()
        self._barrier = threading.Barrier(2)

    def send(self, message: bytes) -> None:
        self.messages.put(message)

    def receive(self) -> memoryview:
        return memoryview(self.messages.get(timeout=PATIENCE_S))

    def meet(self) -> None:
        self._barrier.wait(PATIENCE_S)


def as_channel(channel: QueueChannel) -> ControlChannel:
    return cast("ControlChannel", channel)


def as_runner(executor: ScriptedExecutor) -> ModelRunner:
    return cast("ModelRunner", executor)


def test_a_follower_executes_the_leaders_plans_and_ends_when_told() -> None:
    channel, mine, theirs = QueueChannel(), ScriptedExecutor(), ScriptedExecutor()
    steps: list[None] = []
    leader = LeadingExecutor(as_runner(mine), as_channel(channel))
    requests = [make_request(f"r{n}", [65 + n] * 3, max_tokens=4 + n) for n in range(4)]
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow, as_runner(theirs), as_channel(channel), lambda: steps.append(None))
        outcomes = drive(scripted(executor=cast("Any", leader)).engine, requests)
        leader.beat()
        leader.close()
        following.result(PATIENCE_S)
    assert outcomes == drive(scripted().engine, requests)
    assert len(steps) == len(mine.plans) + 1  # the heartbeat
    assert {slot: list(canvas) for slot, canvas in theirs.canvases.items()} == {
        slot: list(canvas) for slot, canvas in mine.canvases.items()
    }


def test_a_followers_error_ends_its_loop() -> None:
    channel, theirs = QueueChannel(), ScriptedExecutor(fails_at=0)
    rig = scripted(executor=cast("Any", LeadingExecutor(as_runner(ScriptedExecutor()), as_channel(channel))))
    rig.engine.add_request(make_request("a", [65], max_tokens=4))
    rig.engine.step()
    with pytest.raises(RuntimeError, match="the device is gone"):
        follow(as_runner(theirs), as_channel(channel))


def test_a_follower_has_its_own_span_of_a_traced_blocks_first_forward() -> None:
    channel, recorder = QueueChannel(), Recorder()
    leader = LeadingExecutor(as_runner(ScriptedExecutor()), as_channel(channel))
    rig = scripted(executor=cast("Any", leader), telemetry=EngineTelemetry(recorder.provider, num_ranks=2))
    spans = RankTelemetry(1, recorder.provider)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow, as_runner(ScriptedExecutor()), as_channel(channel), telemetry=spans)
        rig.engine.add_request(make_request("a", [65] * 3, max_tokens=8))
        while rig.engine.has_unfinished_requests():
            rig.engine.step()
        leader.close()
        following.result(PATIENCE_S)
    blocks, forwards = recorder.named("lacuna.block"), recorder.named("lacuna.forward")
    assert [said(block)["lacuna.ranks"] for block in blocks] == [2] * len(blocks)
    for rank in (0, 1):
        mine = [forward.parent for forward in forwards if said(forward)["lacuna.rank"] == rank]
        assert [parent and parent.span_id for parent in mine] == [span_id(block) for block in blocks]


def test_a_followers_failure_is_an_error_of_its_span() -> None:
    channel, recorder = QueueChannel(), Recorder()
    leader = LeadingExecutor(as_runner(ScriptedExecutor()), as_channel(channel))
    rig = scripted(executor=cast("Any", leader), telemetry=EngineTelemetry(recorder.provider))
    rig.engine.add_request(make_request("a", [65] * 3, max_tokens=8))
    rig.engine.step()
    with pytest.raises(RuntimeError):
        follow(
            as_runner(ScriptedExecutor(fails_at=0)), as_channel(channel), telemetry=RankTelemetry(1, recorder.provider)
        )
    (failed,) = [span for span in recorder.named("lacuna.forward") if said(span)["lacuna.rank"] == 1]
    assert said(failed)["error.type"] == "RuntimeError"
    assert failed.status.description is None
