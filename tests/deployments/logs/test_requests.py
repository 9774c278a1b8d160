"""The log of the whole application over fakes: one access line per request, and no text of a request anywhere."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from deployments import replay
from deployments.api_keys import ApiKey, KeyRing, digest
from deployments.config import AppConfig
from deployments.grpc_call import RpcFailedError
from deployments.grpc_service import GrpcApi
from deployments.logs.config import LogConfig
from deployments.logs.setup import lines_of
from deployments.messages import GenerateCall, Increment
from deployments.telemetry.jobs import JobSpans
from deployments.telemetry.tracing import Pipeline, Tracing
from engine.async_engine import AsyncEngine
from engine.errors import EngineDeadError, InvalidRequestError
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest
from protos import generation_pb2 as pb
from tests.deployments.fakes import FakeEngine, FakeRouter, http_client, metered
from tests.helpers.engines import ScriptedExecutor, scripted
from tests.helpers.traces import Recorder, span_id, trace_id

CANARY = "canary-7f3a"
ANSWER = "answer-b81c"
Lines = Callable[[], list[dict[str, Any]]]


class Capture(logging.Handler):
    """Keeps formatted lines, as a file would."""

    def __init__(self, config: LogConfig) -> None:
        super().__init__()
        self.setFormatter(lines_of(config, {"component": "ingress"}))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def loaded(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def log_prompts() -> bool:
    """Tests of the option parametrize it."""
    return False


@pytest.fixture
def config(log_prompts: bool) -> AppConfig:
    return AppConfig.parse(
        {"models": "fake=/x", "logging": {"log_format": "json", "log_prompts": log_prompts, "level": "DEBUG"}}
    )


@pytest.fixture
def log(config: AppConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Capture]:
    capture = Capture(config.logging)
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.DEBUG)
    root.addHandler(capture)
    yield capture
    root.removeHandler(capture)


class Broken(FakeEngine):
    """Quotes the prompt when it fails."""

    async def generate(self, call: GenerateCall, replica: str = "") -> AsyncGenerator[Increment]:
        async for increment in super().generate(call, replica):
            yield increment
            raise RuntimeError(f"cannot continue {call.prompt.text}{call.prompt.messages} after {ANSWER}")


BODY = {"model": "fake", "prompt": CANARY, "max_tokens": 4}
CHAT = {"model": "fake", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 4}
INFILL = {"model": "fake", "template": [CANARY, {"gap": 2}]}
REQUESTS: list[tuple[str, dict[str, Any], int]] = [
    ("/v1/completions", BODY, 200),
    ("/v1/completions", BODY | {"stream": True}, 200),
    ("/v1/chat/completions", CHAT, 200),
    ("/v1/infill", INFILL, 200),
    ("/v1/completions", BODY | {"max_tokens": CANARY}, 400),
    ("/v1/completions", BODY | {CANARY: 1}, 400),
    ("/v1/completions", BODY | {"diffusion": {"preset": 3, "arm": CANARY}}, 400),
    ("/v1/completions", BODY | {"model": CANARY}, 404),
]
ENGINES: dict[str, tuple[FakeEngine, int]] = {
    "refuses": (FakeEngine([ANSWER], fail_after=0, error=InvalidRequestError(f"not {CANARY}", "prompt")), 400),
    "lost": (FakeEngine([ANSWER, "b"], fail_after=1, error=EngineDeadError("gone")), 503),
    "broken": (Broken([ANSWER, "b"]), 500),
}


@pytest.mark.parametrize(
    ("log_prompts", "path", "body", "status"),
    [(False, *one) for one in REQUESTS] + [(True, *one) for one in REQUESTS[:4]],
)
async def test_an_answered_request_is_one_line(
    config: AppConfig, log: Capture, path: str, body: dict[str, Any], status: int
) -> None:
    async with http_client(config, FakeEngine([ANSWER, " b"]), FakeRouter()) as client:
        response = await client.post(path, json=body, headers={"x-request-id": "req-42"})
    assert response.status_code == status
    (line,) = [one for one in log.loaded() if one["logger"] == "deployments.logs.access"]
    assert (line["request_id"], line["method"], line["route"], line["status"]) == ("req-42", "POST", path, status)
    assert line["duration_s"] >= 0
    check_texts(log, config, answered=status == 200)
    if status == 200:
        assert (line["model"], line["strategy"]) in {("fake", "fast"), ("fake", "unfinished")}
        assert line["completion_tokens"] == 2
        assert line["forwards"] >= 1
    else:
        assert line["error"] in {"InvalidRequestError", "ModelNotFoundError"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", list(ENGINES))
async def test_failures_are_logged_without_texts(
    config: AppConfig, log: Capture, case: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MAX_REPLAYS", 1)
    monkeypatch.setattr(replay, "FIRST_PAUSE_S", 0.0)
    engine, status = ENGINES[case]
    async with http_client(config, engine) as client:
        response = await client.post("/v1/completions", json=BODY | {"stream": stream})
    assert response.status_code == status or stream
    (line,) = [one for one in log.loaded() if one["logger"] == "deployments.logs.access"]
    assert line["error"] in {"InvalidRequestError", "EngineDeadError", "RuntimeError"}
    check_texts(log, config, answered=False)
    if case == "broken":
        assert any("RuntimeError" in one.get("exception", "") for one in log.loaded())


def check_texts(log: Capture, config: AppConfig, *, answered: bool) -> None:
    """Nothing of the client's or the model's, or with the option in fields of their own."""
    if not config.logging.log_prompts:
        assert CANARY not in "\n".join(log.lines)
        assert ANSWER not in "\n".join(log.lines)
    elif answered:
        (line,) = [one for one in log.loaded() if "prompts" in one]
        assert CANARY in json.dumps(line.pop("prompts"))
        assert ANSWER in json.dumps(line.pop("completions"))
        assert CANARY not in json.dumps(line)


class Context:
    """What is used of a gRPC context."""

    def __init__(self) -> None:
        self.metadata = [("x-request-id", "rpc-7"), ("authorization", "Bearer nothing")]

    def set_code(self, code: object) -> None: ...

    def set_details(self, details: str) -> None: ...

    def set_trailing_metadata(self, trailing_metadata: object) -> None: ...

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self.metadata


@pytest.mark.parametrize("log_prompts", [False, True])
@pytest.mark.parametrize("engine", [FakeEngine([ANSWER, "b"]), Broken([ANSWER, "b"])])
@pytest.mark.parametrize("streamed", [False, True])
async def test_every_rpc_is_one_line(config: AppConfig, log: Capture, engine: FakeEngine, streamed: bool) -> None:
    api = GrpcApi(metered(engine), config, KeyRing([]))
    request = pb.GenerateRequest(model="fake", text=CANARY, sampling=pb.Sampling(max_tokens=4))
    if streamed:
        with contextlib.suppress(RpcFailedError):
            _ = [one async for one in api.generate_stream(request, Context())]
    else:
        await api.generate(request, Context())
    (line,) = [one for one in log.loaded() if one["logger"] == "deployments.logs.access"]
    broken = isinstance(engine, Broken)
    route = "GenerateStream" if streamed else "Generate"
    assert (line["request_id"], line["transport"], line["route"]) == ("rpc-7", "grpc", route)
    assert line["status"] == (500 if broken else 200)
    assert line["completion_tokens"] == (1 if broken else 2)
    check_texts(log, config, answered=not broken)


async def test_the_line_has_the_keys_name_and_never_the_key(log: Capture, config: AppConfig) -> None:
    key = "lk-" + "k" * 40
    ring = KeyRing([ApiKey(name="alice", sha256=digest(key))])
    async with http_client(config, FakeEngine(), keys=ring) as client:
        await client.post("/v1/completions", json=BODY, headers={"authorization": f"Bearer {key}"})
        await client.post("/v1/completions", json=BODY, headers={"authorization": "Bearer wrong-key"})
        await client.post("/v1/completions", json=BODY, headers={"x-request-id": CANARY + " \t"})
    lines = [one for one in log.loaded() if one["logger"] == "deployments.logs.access"]
    assert [one.get("api_key") for one in lines] == ["alice", None, None]
    assert [one["status"] for one in lines] == [200, 401, 400]
    assert lines[2]["request_id"] == "refused"
    assert key not in "\n".join(log.lines)
    assert "wrong-key" not in "\n".join(log.lines)


async def test_an_engine_that_fails_is_told_with_its_reason_and_no_text(config: AppConfig, log: Capture) -> None:
    engine = AsyncEngine(scripted("bidirectional", ScriptedExecutor(fails_at=1)).engine)
    engine.start()
    request = GenerationRequest(request_id="a", prompt=CANARY, sampling=SamplingParams(max_tokens=16))
    with pytest.raises(EngineDeadError):
        _ = [one async for one in engine.generate(request)]
    await engine.close()
    (line,) = [one for one in log.loaded() if one["logger"] == "engine.async_engine"]
    assert "RuntimeError: the device is gone" in line["exception"]
    assert CANARY not in "\n".join(log.lines)


@pytest.mark.parametrize("transport", ["http", "http-stream", "http-refused", "grpc", "grpc-stream"])
async def test_the_line_names_the_trace(config: AppConfig, log: Capture, transport: str) -> None:
    recorder = Recorder()
    tracing = Tracing(Pipeline(recorder.provider, recorder.exporter))
    if transport.startswith("http"):
        body = BODY | {"stream": transport == "http-stream"} | ({CANARY: 1} if transport == "http-refused" else {})
        async with http_client(config, FakeEngine(), tracing=tracing) as client:
            await client.post("/v1/completions", json=body)
    else:
        api = GrpcApi(metered(FakeEngine(), None, JobSpans(tracing.tracer())), config, KeyRing([]), tracing)
        request = pb.GenerateRequest(model="fake", text=CANARY, sampling=pb.Sampling(max_tokens=4))
        if transport == "grpc":
            await api.generate(request, Context())
        else:
            _ = [one async for one in api.generate_stream(request, Context())]
    (line,) = [one for one in log.loaded() if one["logger"] == "deployments.logs.access"]
    (server,) = [span for span in recorder.exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
    assert (line["trace_id"], line["span_id"]) == (f"{trace_id(server):032x}", f"{span_id(server):016x}")
