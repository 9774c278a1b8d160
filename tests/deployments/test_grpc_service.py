"""deployments/grpc_service.py and grpc_api.py: messages and status codes, without Serve."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2

from deployments import grpc_service, replay
from deployments.api_keys import ApiKey, KeyRing, digest
from deployments.callers import Caller
from deployments.config import AppConfig
from deployments.grpc_api import compare_job_of, infill_job_of, job_of
from deployments.grpc_call import TIMEOUT_KEY, RpcFailedError
from deployments.grpc_service import GrpcApi
from deployments.messages import Gap
from engine.errors import EngineDeadError, InvalidRequestError, OverloadedError
from protos import generation_pb2 as pb
from tests.deployments.fakes import FakeEngine, FakeRouter, metered

CONFIG = AppConfig.parse({"models": "fake=/x", "grpc_max_message_bytes": 2000})
KEYS = KeyRing([ApiKey(name="alice", sha256=digest("secret"))])


class Context:
    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing: list[tuple[str, str]] = []
        self._metadata = metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None:
        self.trailing = trailing_metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


def api(engine: FakeEngine, router: FakeRouter | None = None, keys: KeyRing | None = None) -> GrpcApi:
    return GrpcApi(metered(engine, router), CONFIG, keys or KeyRing([]))


def request(**fields: Any) -> pb.GenerateRequest:
    return json_format.ParseDict({"text": "hi"} | fields, pb.GenerateRequest())


def infill(**fields: Any) -> pb.InfillRequest:
    template = [{"text": "one "}, {"gap": {"tokens": 2}}, {"text": " three "}, {"gap": {"maxTokens": 3}}]
    return json_format.ParseDict({"template": template} | fields, pb.InfillRequest())


async def collect(stream: AsyncGenerator[Any]) -> list[Any]:
    return [item async for item in stream]


def test_a_request_becomes_a_job() -> None:
    job = job_of(
        request(
            sampling={"maxTokens": 5, "temperature": 0, "seed": 3, "stop": ["."], "logitBias": {"5": 1.5}},
            strategy={"decoder": "threshold", "blockLength": 8, "params": {"threshold": 0.9, "steps": 4}},
            streamMode="STREAM_MODE_STEP",
            n=2,
            timeoutMs=1500,
            requestId="mine",
            traceparent="t",
            sessionId="s",
            user="u",
        ),
        CONFIG,
        Caller(api_key_name="alice", traceparent="other", timeout_s=9.0),
        stream=True,
    )
    call = job.calls[1]
    assert (call.sampling.max_tokens, call.sampling.seed, call.sampling.stop) == (5, 4, (".",))
    assert call.strategy == {"decoder": "threshold", "block_length": 8, "threshold": 0.9, "steps": 4}
    assert isinstance(call.strategy["steps"], int)
    assert (call.stream, job.timeout_s, job.request_id) == ("step", 1.5, "mine")
    assert (call.traceparent, call.session_id) == ("other", "s")
    assert (job.user, job.api_key_name) == ("u", "alice")
    assert call.sampling.logit_bias == {5: 1.5}


def test_the_clients_deadline_is_ours_too() -> None:
    assert job_of(request(timeoutMs=5000), CONFIG, Caller(timeout_s=0.25), stream=False).timeout_s == 0.25
    assert job_of(request(timeoutMs=5000), CONFIG, Caller(), stream=False).timeout_s == 5.0


def test_a_preset_travels_with_what_replaces_its_options() -> None:
    asked = request(strategy={"preset": "fast@2", "cache": "dual", "params": {"threshold": 0.5}})
    (call,) = job_of(asked, CONFIG, Caller(), stream=False).calls
    assert call.strategy == {"preset": "fast@2", "cache": "dual", "threshold": 0.5}


def test_unset_fields_take_the_defaults() -> None:
    job = job_of(request(), CONFIG, Caller(), stream=False)
    assert job.model == "fake"
    assert job.calls[0].sampling.max_tokens == 128
    assert job.calls[0].strategy == {}
    assert job.calls[0].stream == "final"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": ""}, "prompt"),
        ({"tokenIds": {"ids": []}, "text": None}, "prompt"),
        ({"chat": {"messages": []}, "text": None}, "messages"),
        ({"text": None}, "prompt"),
        ({"sampling": {"maxTokens": 0}}, "max_tokens"),
        ({"sampling": {"topP": 2}}, "top_p"),
        ({"strategy": {"params": {"decoder": "x"}}}, "strategy.params.decoder"),
        ({"streamMode": 9}, "stream_mode"),
        ({"n": 1000}, "n"),
        ({"suffix": "x", "streamMode": "STREAM_MODE_EVENTS"}, "stream_mode"),
        ({"suffix": "x", "sampling": {"maxTokens": 0}}, "max_tokens"),
        ({"user": "u" * 300}, "user"),
        ({"sampling": {"stop": [""]}}, "stop"),
        ({"sampling": {"stop": ["x"] * 17}}, "stop"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        job_of(request(**fields), CONFIG, Caller(), stream=True)
    assert caught.value.param == param


async def test_generate() -> None:
    response = await api(FakeEngine(["a", "b"])).generate(request(n=2), Context())
    assert [(choice.index, choice.text) for choice in response.choices] == [(0, "ab"), (1, "ab")]
    assert response.choices[0].finish_reason == pb.FINISH_REASON_STOP
    assert list(response.choices[0].token_ids) == [0, 1]
    assert (response.usage.prompt_tokens, response.usage.forwards, response.usage.positions_computed) == (3, 4, 32)
    used = response.usage.strategy
    assert (used.chosen_by, used.adjusted) == ("default", False)
    assert (used.name, used.version, dict(used.options)) == ("fast", 2, {"threshold": 0.5})


async def test_a_stream_ends_with_the_usage() -> None:
    chunks = await collect(api(FakeEngine(["a", "", "b"])).generate_stream(request(), Context()))
    assert "".join(chunk.delta.text for chunk in chunks) == "ab"
    assert [chunk.HasField("usage") for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert not chunks[-1].HasField("delta")
    assert chunks[-2].delta.finish_reason == pb.FINISH_REASON_STOP
    assert chunks[-1].usage.tokens_per_forward == 1.0
    assert chunks[-1].usage.strategy.name == "fast"


async def test_a_stream_of_steps_carries_the_canvas() -> None:
    stream = api(FakeEngine(["a", "b"])).generate_stream(request(streamMode="STREAM_MODE_STEP"), Context())
    first = (await collect(stream))[0]
    assert list(first.canvas.texts) == ["a", ""]
    assert list(first.canvas.revealed_at) == [1, 0]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OverloadedError("full", None, 2.0), grpc.StatusCode.RESOURCE_EXHAUSTED, "retry after 2 s"),
        (InvalidRequestError("bad", "strategy.threshold"), grpc.StatusCode.INVALID_ARGUMENT, "strategy.threshold"),
        (EngineDeadError("gone"), grpc.StatusCode.UNAVAILABLE, "gone"),
        (RuntimeError("secret"), grpc.StatusCode.INTERNAL, "see its log"),
    ],
)
async def test_failures_set_the_status(
    error: Exception, code: grpc.StatusCode, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MAX_REPLAYS", 0)
    engine, context, streaming = FakeEngine(["a", "b"], fail_after=1, error=error), Context(), Context()
    await api(engine).generate(request(), context)
    assert context.code is code
    assert text in context.details
    assert "secret" not in context.details
    stream = api(engine).generate_stream(request(), streaming)
    assert (await anext(stream)).delta.text == "a", "what came before the failure is sent"
    with pytest.raises(RpcFailedError) as caught:
        await anext(stream)
    assert "secret" not in str(caught.value)
    assert streaming.code is code


async def test_closing_a_stream_stops_the_engine() -> None:
    engine = FakeEngine(["x"] * 100, delay_s=0.01)
    stream = api(engine).generate_stream(request(), Context())
    await anext(stream)
    assert engine.running
    await stream.aclose()
    assert not engine.running


async def test_models_and_strategies() -> None:
    models = await api(FakeEngine()).list_models(pb.ListModelsRequest(), Context())
    assert models.models[0].is_default
    assert models.models[0].default_strategy["decoder"] == "threshold"
    assert models.models[0].presets["fast"]["preset"] == "fast@2"
    strategies = await api(FakeEngine()).list_strategies(pb.ListStrategiesRequest(), Context())
    assert strategies.model == "fake"
    decoder, preset = strategies.strategies
    assert (decoder.schema["type"], list(decoder.traits)) == ("object", ["edits"])
    assert (preset.kind, preset.version, preset.goal, list(preset.families)) == ("preset", 2, "fast", ["fake"])
    assert dict(preset.options) == {"threshold": 0.5}
    context = Context()
    await api(FakeEngine()).list_strategies(pb.ListStrategiesRequest(model="none"), context)
    assert context.code is grpc.StatusCode.NOT_FOUND


async def test_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_service, "WATCH_PERIOD_S", 0.01)
    engine = FakeEngine()
    service = api(engine)

    def ask(name: str) -> health_pb2.HealthCheckRequest:
        return health_pb2.HealthCheckRequest(service=name)

    for name in ("", grpc_service.SERVICE_NAME, "fake"):
        assert (await service.check(ask(name), Context())).status == 1
    context = Context()
    await service.check(ask("none"), context)
    assert context.code is grpc.StatusCode.NOT_FOUND
    watched = service.watch(ask("fake"), Context())
    assert (await anext(watched)).status == 1
    engine.unhealthy = EngineDeadError("stuck")
    assert (await anext(watched)).status == 2
    await watched.aclose()
    assert (await anext(service.watch(ask("none"), Context()))).status == 3


async def test_probabilities_and_the_prompt_on_request() -> None:
    response = await api(FakeEngine(["a", "b", "c"])).generate(request(logprobs=True, echo=True), Context())
    choice = response.choices[0]
    assert choice.text == "hiabc"
    assert list(choice.logprobs[:2]) == [-0.5, -1.0]
    assert math.isnan(choice.logprobs[2])
    assert list(choice.token_texts) == ["a", "b", "c"]
    plain = await api(FakeEngine(["a"])).generate(request(), Context())
    assert not plain.choices[0].logprobs


async def test_events() -> None:
    chunks = await collect(
        api(FakeEngine(["a", "b"])).generate_stream(request(streamMode="STREAM_MODE_EVENTS"), Context())
    )
    events = [event for chunk in chunks for event in chunk.events]
    assert [event.WhichOneof("kind") for event in events] == ["length", "canvas", "commit", "canvas", "commit"]
    assert events[0].length.length == 2
    assert (list(events[3].canvas.positions), list(events[3].canvas.texts)) == ([1], ["1"])
    assert list(events[3].canvas.probabilities) == [math.exp(-1.0)]
    assert [chunk.forwards for chunk in chunks if chunk.events] == [1, 2]
    assert (events[4].commit.start, events[4].commit.end, events[4].commit.text) == (1, 2, "b")
    assert not any(chunk.HasField("canvas") for chunk in chunks)


async def test_a_suffix_makes_a_gap() -> None:
    engine = FakeEngine(["a", "b"])
    asked = request(suffix="end", sampling={"maxTokens": 7})
    response = await api(engine).generate(asked, Context())
    assert response.choices[0].text == "ab"
    assert engine.calls[0].template == (Gap(tokens=7, may_end_early=True), "end")
    chunks = await collect(api(engine).generate_stream(asked, Context()))
    assert [chunk.delta.text for chunk in chunks] == ["ab", ""]


async def test_infill() -> None:
    response = await api(FakeEngine(["a", "b"])).infill(infill(logprobs=True), Context())
    assert response.text == "one ab three ab"
    assert [gap.text for gap in response.gaps] == ["ab", "ab"]
    assert list(response.gaps[0].logprobs) == [-0.5, -1.0]
    assert response.usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"template": []}, "template[0]"),
        ({"template": [{"gap": {"tokens": 1}}]}, "template[0]"),
        ({"template": [{"text": "a"}, {}]}, "template[1].gap"),
        ({"template": [{"text": "a"}, {"gap": {"tokens": 0}}]}, "template[1].gap"),
        ({"template": [{"text": ""}, {"gap": {"tokens": 1}}]}, "prompt"),
        ({"template": [{"text": "a"}] * 300}, "template"),
        ({"sampling": {"maxTokens": 3}}, "sampling.max_tokens"),
    ],
)
def test_wrong_templates_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        infill_job_of(infill(**fields), CONFIG, Caller())
    assert caught.value.param == param


async def test_without_a_key_nothing_is_served_but_health() -> None:
    engine, context = FakeEngine(), Context(("authorization", "Bearer wrong"))
    closed = api(engine, keys=KEYS)
    await closed.generate(request(), context)
    assert context.code is grpc.StatusCode.UNAUTHENTICATED
    streaming = Context()
    with pytest.raises(RpcFailedError):
        await collect(closed.generate_stream(request(), streaming))
    assert streaming.code is grpc.StatusCode.UNAUTHENTICATED
    assert not engine.calls
    assert (await closed.check(health_pb2.HealthCheckRequest(), Context())).status == 1
    opened = Context(("authorization", "Bearer secret"))
    assert (await closed.generate(request(), opened)).choices
    assert opened.code is None


async def test_every_call_has_a_request_id() -> None:
    for metadata, expected in (((), "req-"), ((("x-request-id", "mine"),), "mine")):
        for failing in (False, True):
            context = Context(*metadata)
            await api(FakeEngine()).generate(request(n=1000 if failing else 1), context)
            ((key, value),) = context.trailing
            assert key == "x-request-id"
            assert value.startswith(expected)
    context = Context(("x-request-id", "a b"))
    await api(FakeEngine()).generate(request(), context)
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_large_messages_and_short_deadlines() -> None:
    context = Context()
    await api(FakeEngine()).generate(request(text="x" * 3000), context)
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2000" in context.details
    context = Context((TIMEOUT_KEY, "20"))
    await api(FakeEngine(delay_s=1.0)).generate(request(), context)
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED


def comparison(**fields: Any) -> pb.CompareRequest:
    strategies = [{"decoder": "threshold", "params": {"threshold": 0.8}}, {"preset": "fast"}]
    return json_format.ParseDict({"text": "hi", "strategies": strategies} | fields, pb.CompareRequest())


async def test_a_comparison_answers_every_strategy_with_its_own_cost() -> None:
    context = Context()
    answer = await api(FakeEngine()).compare(comparison(requestId="mine", sampling={"seed": 5}), context)
    assert context.code is None
    assert (answer.request_id, answer.model) == ("mine", "fake")
    assert [one.index for one in answer.answers] == [0, 1]
    given = [json_format.MessageToDict(one.strategy) for one in answer.answers]
    assert given == [{"decoder": "threshold", "threshold": 0.8}, {"preset": "fast"}]
    assert all(one.text and one.finish_reason for one in answer.answers)
    assert all(0 < one.first_s <= one.total_s for one in answer.answers)
    assert answer.usage.forwards == sum(one.usage.forwards for one in answer.answers) > 0


def test_all_answers_of_a_comparison_draw_with_one_seed() -> None:
    job = compare_job_of(comparison(sampling={"temperature": 0.7}), CONFIG, Caller())
    assert job.is_comparison
    assert len({call.sampling.seed for call in job.calls}) == 1
    assert [call.strategy for call in job.calls] == [{"decoder": "threshold", "threshold": 0.8}, {"preset": "fast"}]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"strategies": []}, "2 to 8"),
        ({"strategies": [{"preset": "fast"}] * 9}, "2 to 8"),
        ({"text": ""}, "empty"),
        ({"timeoutMs": 2**31}, "timeout_ms"),
    ],
)
async def test_a_wrong_comparison_is_told_by_its_field(fields: dict[str, Any], says: str) -> None:
    context = Context()
    await api(FakeEngine()).compare(comparison(**fields), context)
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert says in context.details
