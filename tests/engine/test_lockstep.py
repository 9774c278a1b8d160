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
from tests.helpers.engines import ScriptedExecutor, drive, make_request, scripted

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
