"""Whole requests over fakes: the server's span, the job's, what clients are told, and what is left out."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from deployments import replay
from deployments.api_keys import KeyRing
from deployments.config import AppConfig
from deployments.grpc_call import RpcFailedError
from deployments.grpc_service import GrpcApi
from deployments.messages import GenerateCall, Increment
from deployments.telemetry import current_ids
from deployments.telemetry.catalog import DEPLOYMENT_SPANS, HTTP_SERVER, JOB, RPC_SERVER
from deployments.telemetry.jobs import JobSpans
from deployments.telemetry.tracing import OFF, Pipeline, Tracing
from engine.errors import EngineDeadError, InvalidRequestError, OverloadedError
from protos import generation_pb2 as pb
from tests.deployments.fakes import FakeEngine, FakeRouter, http_client, metered
from tests.deployments.test_grpc_service import Context
from tests.helpers.traces import SAMPLED, UNSAMPLED, Recorder, is_child, said, span_id, trace_id

CONFIG = AppConfig.parse({"models": "fake=/x"})
BODY = {"prompt": "canary", "max_tokens": 4, "temperature": 0.5, "seed": 3}
CHAT = {"messages": [{"role": "user", "content": "canary"}]}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def tracing(recorder: Recorder, *, record_prompts: bool = False) -> Tracing:
    return Tracing(Pipeline(recorder.provider, recorder.exporter), record_prompts)


async def post(
    recorder: Recorder,
    path: str,
    body: Any,
    engine: FakeEngine | None = None,
    router: FakeRouter | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> Any:
    made = tracing(recorder, **options)
    async with http_client(CONFIG, engine or FakeEngine(), router, tracing=made) as client:
        return await client.post(path, json=body, headers=headers)


def grpc_api(recorder: Recorder, engine: FakeEngine, router: FakeRouter | None = None) -> GrpcApi:
    made = tracing(recorder)
    return GrpcApi(metered(engine, router, JobSpans(made.tracer())), CONFIG, KeyRing([]), made)


def generate(**fields: Any) -> pb.GenerateRequest:
    return json_format.ParseDict({"text": "canary"} | fields, pb.GenerateRequest())


def check_attributes(recorder: Recorder) -> None:
    specs = {spec.name: set(spec.attributes) for spec in DEPLOYMENT_SPANS}
    for span in recorder.spans:
        attributes = set(said(span))
        servers = {"http.request.method": HTTP_SERVER.name, "rpc.method": RPC_SERVER.name}
        name = next((spec for sign, spec in servers.items() if sign in attributes), span.name)
        assert attributes <= specs[name], span.name


def server_and_job(recorder: Recorder) -> tuple[ReadableSpan, ReadableSpan]:
    check_attributes(recorder)
    server, job = recorder.spans
    assert server.kind is SpanKind.SERVER
    assert job.name == JOB.name
    assert is_child(job, server)
    return server, job


@pytest.mark.parametrize("stream", [False, True])
async def test_an_http_request_is_a_child_of_its_clients_span(recorder: Recorder, stream: bool) -> None:
    engine, router = FakeEngine(), FakeRouter()
    headers = {"traceparent": SAMPLED, "tracestate": "vendor=1", "x-session-id": "s"}
    response = await post(recorder, "/v1/completions", BODY | {"stream": stream}, engine, router, headers)

    server, job = server_and_job(recorder)
    assert f"{trace_id(server):032x}" == SAMPLED[3:35]
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == SAMPLED[36:52]
    assert server.name == "POST /v1/completions"
    assert said(server)["http.route"] == said(server)["url.path"] == "/v1/completions"
    assert said(server)["http.response.status_code"] == 200
    assert said(job) | {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.model": "fake",
        "gen_ai.request.seed": 3,
        "gen_ai.request.stream": stream,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.response.finish_reasons": ("stop",),
        "lacuna.tokens_per_forward": 1.0,
        "lacuna.strategy.chosen_by": "default",
        "session.id": "s",
        "lacuna.shadow": False,
    } == said(job)
    assert response.headers["x-trace-id"] == SAMPLED[3:35]
    assert response.headers["traceresponse"] == f"00-{SAMPLED[3:35]}-{span_id(server):016x}-01"
    (call,), (admission,) = engine.calls, router.admitted
    own = f"00-{SAMPLED[3:35]}-{span_id(job):016x}-01"
    assert (call.traceparent, call.tracestate) == (admission.traceparent, admission.tracestate) == (own, "vendor=1")


async def test_an_http_request_without_a_parent_begins_a_trace(recorder: Recorder) -> None:
    response = await post(recorder, "/v1/chat/completions", CHAT | {"n": 2})
    server, job = server_and_job(recorder)
    assert server.parent is None
    assert response.headers["x-trace-id"] == f"{trace_id(server):032x}"
    assert (said(job)["gen_ai.operation.name"], said(job)["lacuna.sequences"]) == ("chat", 2)
    assert said(job)["gen_ai.response.finish_reasons"] == ("stop", "stop")
    assert said(job)["gen_ai.usage.input_tokens"] == 3, "both answers are to the same prompt"


async def test_an_unsampled_parent_stays_unsampled_all_the_way() -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

    recorder, engine, router = Recorder(ParentBased(ALWAYS_ON)), FakeEngine(), FakeRouter()
    response = await post(recorder, "/v1/completions", BODY, engine, router, {"traceparent": UNSAMPLED})
    assert not recorder.spans
    assert "x-trace-id" not in response.headers
    for parent in (engine.calls[0].traceparent, router.admitted[0].traceparent):
        assert str(parent).startswith(UNSAMPLED[:35])
        assert str(parent).endswith("-00")


async def test_without_tracing_the_clients_context_is_passed_on_as_it_is() -> None:
    engine = FakeEngine()
    async with http_client(CONFIG, engine) as client:
        response = await client.post("/v1/completions", json=BODY, headers={"traceparent": SAMPLED})
    assert engine.calls[0].traceparent == SAMPLED
    assert "x-trace-id" not in response.headers


@pytest.mark.parametrize("path", ["/health", "/healthz", "/metrics"])
async def test_what_machines_ask_for_all_the_time_is_not_traced(recorder: Recorder, path: str) -> None:
    async with http_client(CONFIG, FakeEngine(), tracing=tracing(recorder)) as client:
        await client.get(path)
    assert not recorder.spans


@pytest.mark.parametrize(
    ("body", "status"),
    [({"prompt": 5}, 400), (BODY | {"model": "canary"}, 404), (BODY | {"diffusion": {"goal": "canary"}}, 400)],
)
async def test_a_wrong_request_is_no_failure_of_the_server(recorder: Recorder, body: Any, status: int) -> None:
    response = await post(recorder, "/v1/completions", body)
    server = recorder.spans[0]
    assert response.status_code == said(server)["http.response.status_code"] == status
    assert server.status.status_code is StatusCode.UNSET
    assert response.headers["x-trace-id"]
    assert "canary" not in json.dumps([span.to_json() for span in recorder.spans])


@pytest.mark.parametrize("path", ["/none", "/v1/completions/x"])
async def test_without_a_route_the_name_is_the_method(recorder: Recorder, path: str) -> None:
    await post(recorder, path, {})
    (span,) = recorder.spans
    assert (span.name, "http.route" in said(span)) == ("POST", False)


async def test_a_failure_of_the_engine_is_an_error_of_all_above_it(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MAX_REPLAYS", 0)
    await post(recorder, "/v1/completions", BODY, FakeEngine(fail_after=0, error=EngineDeadError("gone")))
    server, job = server_and_job(recorder)
    assert (server.status.status_code, said(server)["error.type"]) == (StatusCode.ERROR, "503")
    assert (job.status.status_code, job.status.description) == (StatusCode.ERROR, "gone")
    assert said(job)["error.type"] == "EngineDeadError"


async def test_a_replica_that_is_lost_is_an_event_and_a_second_attempt(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "FIRST_PAUSE_S", 0.0)

    class LosesTheFirst(FakeEngine):
        async def generate(self, call: GenerateCall, replica: str = "") -> AsyncGenerator[Increment]:
            self.fail_after = 1 if call.attempt == 0 else None
            async for increment in super().generate(call, replica):
                yield increment

    engine, router = LosesTheFirst(["a", "b"], error=EngineDeadError("gone")), FakeRouter()
    await post(recorder, "/v1/completions", BODY | {"stream": True}, engine, router)
    _, job = server_and_job(recorder)
    (event,) = job.events
    assert event.name == "lacuna.replica_lost"
    assert (event.attributes or {})["lacuna.replica"] == "replica-0"
    assert job.status.status_code is StatusCode.UNSET
    assert [call.attempt for call in engine.calls] == [0, 1]
    assert len({call.traceparent for call in engine.calls}) == 1
    assert [request.resumed for request in router.admitted] == [False, True]
    assert len({request.traceparent for request in router.admitted}) == 1


async def test_a_client_that_goes_ends_the_spans(recorder: Recorder) -> None:
    engine = FakeEngine(["x"] * 100, delay_s=0.01)
    service = metered(engine, None, JobSpans(recorder.provider.get_tracer("t")))
    from tests.deployments.test_service import job

    stream = service.stream(job())
    await anext(stream)
    await stream.aclose()
    (span,) = recorder.spans
    assert said(span)["lacuna.cancelled"] is True
    assert said(span)["gen_ai.usage.output_tokens"] == 1
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("path", "body", "parts"),
    [
        ("/v1/completions", BODY, [{"type": "text", "content": "canary"}]),
        ("/v1/chat/completions", CHAT, [{"type": "text", "content": "canary"}]),
        (
            "/v1/infill",
            {"template": ["canary", {"gap": 2}, "tail"]},
            [{"type": "text", "content": "canary"}, {"type": "gap", "tokens": 2}, {"type": "text", "content": "tail"}],
        ),
    ],
)
async def test_prompts_and_answers_are_recorded_only_where_that_is_asked_for(
    recorder: Recorder, path: str, body: Any, parts: list[dict[str, object]]
) -> None:
    await post(recorder, path, body)
    plain = "".join(span.to_json() for span in recorder.spans)
    assert "canary" not in plain
    assert "world" not in plain
    recorder.exporter.clear()
    await post(recorder, path, body, record_prompts=True)
    _, job = server_and_job(recorder)
    assert json.loads(said(job)["gen_ai.input.messages"]) == [{"role": "user", "parts": parts}]
    (answer,) = json.loads(said(job)["gen_ai.output.messages"])
    assert answer["parts"] == [{"type": "text", "content": "Hello world"}]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_grpc_call_is_a_child_of_its_clients_span(recorder: Recorder, streamed: bool) -> None:
    engine = FakeEngine()
    api, context = grpc_api(recorder, engine), Context(("traceparent", SAMPLED), ("tracestate", "vendor=1"))
    if streamed:
        assert [chunk async for chunk in api.generate_stream(generate(), context)]
    else:
        await api.generate(generate(), context)
    server, job = server_and_job(recorder)
    method = f"lacuna.v1.Generation/{'GenerateStream' if streamed else 'Generate'}"
    assert server.name == said(server)["rpc.method"] == method
    assert said(server)["rpc.response.status_code"] == "OK"
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == SAMPLED[36:52]
    assert dict(context.trailing)["x-trace-id"] == SAMPLED[3:35]
    assert "x-request-id" in dict(context.trailing)
    assert engine.calls[0].traceparent == f"00-{SAMPLED[3:35]}-{span_id(job):016x}-01"
    assert engine.calls[0].tracestate == "vendor=1"


async def test_the_messages_own_trace_wins_over_the_metadatas(recorder: Recorder) -> None:
    other = SAMPLED.replace("0123", "4567")
    await grpc_api(recorder, FakeEngine()).generate(generate(traceparent=SAMPLED), Context(("traceparent", other)))
    server, _ = server_and_job(recorder)
    assert f"{trace_id(server):032x}" == SAMPLED[3:35]
    engine = FakeEngine()
    await GrpcApi(metered(engine), CONFIG, KeyRing([]), OFF).generate(
        generate(traceparent=SAMPLED), Context(("traceparent", other))
    )
    assert engine.calls[0].traceparent == SAMPLED


@pytest.mark.parametrize(
    ("error", "code", "failed"),
    [
        (OverloadedError("full"), "RESOURCE_EXHAUSTED", False),
        (InvalidRequestError("canary"), "INVALID_ARGUMENT", False),
        (EngineDeadError("gone"), "UNAVAILABLE", True),
        (RuntimeError("canary"), "INTERNAL", True),
    ],
)
async def test_the_status_of_a_grpc_call(
    recorder: Recorder, error: Exception, code: str, failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MAX_REPLAYS", 0)
    api = grpc_api(recorder, FakeEngine(fail_after=0, error=error))
    context = Context()
    await api.generate(generate(), context)
    with pytest.raises(RpcFailedError):
        await anext(api.generate_stream(generate(), Context()))
    assert context.code is grpc.StatusCode[code]
    for server in recorder.named("lacuna.v1.Generation/Generate") + recorder.named(
        "lacuna.v1.Generation/GenerateStream"
    ):
        assert said(server)["rpc.response.status_code"] == code
        assert (server.status.status_code is StatusCode.ERROR) is failed
    assert [span.status.status_code for span in recorder.named("lacuna.job")] == [StatusCode.ERROR] * 2
    assert "canary" not in "".join(span.to_json() for span in recorder.spans)


async def test_a_grpc_stream_that_is_closed_is_cancelled(recorder: Recorder) -> None:
    stream = grpc_api(recorder, FakeEngine(["x"] * 100, delay_s=0.01)).generate_stream(generate(), Context())
    await anext(stream)
    await stream.aclose()
    server, job = server_and_job(recorder)
    assert said(server)["rpc.response.status_code"] == "CANCELLED"
    assert said(job)["lacuna.cancelled"] is True


@pytest.mark.parametrize("transport", ["http", "grpc", "grpc-stream"])
async def test_log_lines_of_a_request_find_their_trace(recorder: Recorder, transport: str) -> None:
    seen: list[tuple[str, str] | None] = []

    class Logs(FakeEngine):
        async def generate(self, call: GenerateCall, replica: str = "") -> AsyncGenerator[Increment]:
            async for increment in super().generate(call, replica):
                seen.append(current_ids())
                yield increment

    if transport == "http":
        await post(recorder, "/v1/completions", BODY | {"stream": True}, Logs())
    elif transport == "grpc":
        await grpc_api(recorder, Logs()).generate(generate(), Context())
    else:
        async for _ in grpc_api(recorder, Logs()).generate_stream(generate(), Context()):
            assert current_ids() is None, "between chunks the caller's own context is the current one"
    server, _ = server_and_job(recorder)
    assert set(seen) == {(f"{trace_id(server):032x}", f"{span_id(server):016x}")}
