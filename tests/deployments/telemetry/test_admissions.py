"""The router's span, over the real queue and placement."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from opentelemetry.trace import StatusCode

from deployments.admission import QueueLimits
from deployments.messages import AdmissionRequest
from deployments.model_router import ModelRouter
from deployments.telemetry.admissions import traced_admission
from deployments.telemetry.catalog import DEPLOYMENT_SPANS
from engine.errors import OverloadedError
from engine.work import WorkShape
from tests.deployments.fakes import FakeFleet
from tests.helpers.traces import SAMPLED, Recorder, check_against, said, times

SHAPE = WorkShape(prompt_tokens=8, max_tokens=32, block_length=8, cache="dual")
REQUEST = AdmissionRequest(
    key="a", model="m", shapes=(SHAPE,), priority=1, timeout_s=5.0, traceparent=SAMPLED, resumed=True
)


async def test_what_a_request_waited_for_and_what_it_was_given() -> None:
    recorder = Recorder()
    tracer = recorder.provider.get_tracer("t")
    router = ModelRouter(FakeFleet(["x", "y"]), 1, QueueLimits(), 5.0)
    await traced_admission(tracer, REQUEST, router.admit)
    await traced_admission(tracer, replace(REQUEST, key="b"), router.admit)
    waiting = asyncio.create_task(traced_admission(tracer, replace(REQUEST, key="c"), router.admit))
    await asyncio.sleep(0.02)
    router.release("a")
    await waiting
    await router.close()

    check_against(DEPLOYMENT_SPANS, recorder.spans)
    first, second, third = recorder.spans
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == SAMPLED[36:52]
    assert {*said(first)["lacuna.replicas"], *said(second)["lacuna.replicas"]} == {"x", "y"}
    assert said(third)["lacuna.replicas"] == said(first)["lacuna.replicas"]
    start, end = times(third)
    assert 0.01 < said(third)["lacuna.waited_s"] <= (end - start) / 1e9
    assert said(third)["lacuna.predicted_positions"] > 0
    assert said(third)["lacuna.pressure"] == 1.0
    assert said(third)["lacuna.resumed"] is True


async def test_a_refusal_is_an_error() -> None:
    recorder = Recorder()
    router = ModelRouter(FakeFleet(["x"]), 1, QueueLimits(), 5.0)
    with pytest.raises(OverloadedError):
        await traced_admission(recorder.provider.get_tracer("t"), replace(REQUEST, is_spare=True), router.admit)
    await router.close()
    (span,) = recorder.spans
    assert span.status.status_code is StatusCode.ERROR
    assert said(span)["error.type"] == "OverloadedError"
