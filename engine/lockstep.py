"""Ranks in lockstep: the first sends every plan to the others, and all execute it at the same time.

Each message is one byte that says what it is, and for a plan the plan. While there is nothing to execute the leader
sends heartbeats, so that nobody waits longer than a collective may, and a rank that is gone or hangs is found.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from engine.channel import ControlChannel
from engine.model_runner import ModelRunner
from engine.plan import IterationPlan, StepResult
from engine.plan_codec import decode_plan, encode_plan
from engine.telemetry import RankTelemetry

PLAN, BEAT, STOP = b"P", b"B", b"S"


class LeadingExecutor:
    """The executor of rank 0. Errors of its own rank and RuntimeErrors of the exchange end the whole group: the others
    may have executed what this one has not."""

    def __init__(self, runner: ModelRunner, channel: ControlChannel) -> None:
        self._runner = runner
        self._channel = channel

    def execute(self, plan: IterationPlan) -> StepResult:
        """Have every rank execute the plan; this rank's result, which is everybody's."""
        self._channel.send(PLAN + encode_plan(plan))
        return self._runner.execute(plan)

    def beat(self) -> None:
        """Learn that all ranks live; to be called well within the channel's timeout while nothing is executed."""
        self._channel.send(BEAT)
        self._channel.meet()

    def close(self) -> None:
        """Let the other ranks go; returns when all have heard of it."""
        self._channel.send(STOP)
        self._channel.meet()


def follow(
    runner: ModelRunner,
    channel: ControlChannel,
    on_step: Callable[[], None] | None = None,
    telemetry: RankTelemetry | None = None,
) -> None:
    """Execute what rank 0 sends until it says stop. ``on_step`` is called after each message."""
    while True:
        message = channel.receive()
        kind = bytes(message[:1])
        if kind == PLAN:
            plan = decode_plan(message[1:])
            with telemetry.forward(plan.traceparent) if telemetry else nullcontext():
                runner.execute(plan)
        else:
            channel.meet()
            if kind == STOP:
                return
        if on_step is not None:
            on_step()
