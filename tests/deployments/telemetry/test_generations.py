"""The replica's span around the engine's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry.trace import StatusCode

from deployments import replica as replica_module
from deployments.config import ModelConfig
from deployments.messages import GenerateCall, Prompt
from deployments.replica import EngineReplica
from deployments.telemetry.catalog import DEPLOYMENT_SPANS
from deployments.telemetry.sampling import by_ratio
from deployments.telemetry.tracing import Pipeline, Tracing
from engine.errors import LacunaError
from engine.sampling_params import SamplingParams
from engine.span_catalog import ENGINE_SPANS
from tests.deployments.test_replica import BareReplica
from tests.helpers.traces import SAMPLED, UNSAMPLED, Recorder, check_against, is_child, said

RECORDER = Recorder(by_ratio(1.0))


@pytest.fixture(scope="module")
def replica() -> Iterator[EngineReplica]:
    with pytest.MonkeyPatch.context() as patch:
        made = Tracing(Pipeline(RECORDER.provider, RECORDER.exporter))
        patch.setattr(replica_module, "start_tracing", lambda *_: made)
        bare = BareReplica(ModelConfig(id="lacuna-tiny-sdar", engine={"max_num_seqs": 2, "num_threads": 1}))
    yield bare
    asyncio.run(bare.engine.close())


@pytest.fixture
def recorder() -> Recorder:
    RECORDER.exporter.clear()
    return RECORDER


def call_of(traceparent: str, prompt: str = "def f(", **strategy: object) -> GenerateCall:
    return GenerateCall(
        request_id="a",
        prompt=Prompt(text=prompt),
        sampling=SamplingParams(max_tokens=16, ignore_eos=True),
        strategy=strategy,
        stream="block",
        traceparent=traceparent,
        session_id="s",
        attempt=2,
    )


async def test_the_engines_spans_lie_within_the_replicas(replica: EngineReplica, recorder: Recorder) -> None:
    assert [item async for item in replica.generate(call_of(SAMPLED))]
    check_against((*DEPLOYMENT_SPANS, *ENGINE_SPANS), recorder.spans)
    outer, sequence = recorder.one("lacuna.generate"), recorder.one("lacuna.sequence")
    assert is_child(sequence, outer)
    assert outer.parent is not None
    assert f"{outer.parent.span_id:016x}" == SAMPLED[36:52]
    assert said(outer) == {"lacuna.request_id": "a", "lacuna.attempt": 2, "session.id": "s"}
    assert recorder.named("lacuna.block")


async def test_a_request_that_the_engine_refuses(replica: EngineReplica, recorder: Recorder) -> None:
    (error,) = [item async for item in replica.generate(call_of(SAMPLED, decoder="canary"))]
    assert isinstance(error, LacunaError)
    span = recorder.one("lacuna.generate")
    assert span.status.status_code is StatusCode.ERROR
    assert said(span)["error.type"] == type(error).__name__
    assert "canary" not in span.to_json(), "a client's own words stay out"


async def test_closing_the_stream_ends_all_spans(replica: EngineReplica, recorder: Recorder) -> None:
    stream = replica.generate(call_of(SAMPLED, block_length=4))
    await anext(stream)
    await stream.aclose()
    for _ in range(500):  # the engine's thread hears of it a moment later
        if recorder.named("lacuna.sequence"):
            break
        await asyncio.sleep(0.01)
    assert said(recorder.one("lacuna.generate"))["lacuna.cancelled"] is True
    assert said(recorder.one("lacuna.sequence"))["lacuna.finish_reason"] == "abort"


async def test_what_is_not_sampled_leaves_nothing(replica: EngineReplica, recorder: Recorder) -> None:
    assert [item async for item in replica.generate(call_of(UNSAMPLED))]
    assert not recorder.spans
