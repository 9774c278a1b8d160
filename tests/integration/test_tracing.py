"""One trace per request, over all processes, as a real collector receives it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from deployments.telemetry.catalog import DEPLOYMENT_SPANS, HTTP_SERVER, RPC_SERVER
from engine.span_catalog import ENGINE_SPANS
from protos import generation_pb2 as pb
from protos.generation_pb2_grpc import GenerationStub
from tests.helpers.collector import Collector, Received

SDAR, LLADA = "lacuna-tiny-sdar", "lacuna-tiny-llada"
PARENTS = {
    "lacuna.job": "server",
    "lacuna.admission": "lacuna.job",
    "lacuna.generate": "lacuna.job",
    "lacuna.sequence": "lacuna.generate",
    "lacuna.queue": "lacuna.sequence",
    "lacuna.prefill": "lacuna.sequence",
    "lacuna.block": "lacuna.sequence",
    "lacuna.forward": "lacuna.block",
}
COMPONENTS = {"server": "ingress", "lacuna.job": "ingress", "lacuna.admission": "router"}
SLACK_NS = 5_000_000
"""Processes of one machine read one clock, but not at one moment."""

MADE: set[str] = set()
"""The traces of all clients: some of their spans arrive when the next test has begun."""


@dataclass(frozen=True, slots=True)
class ClientTrace:
    """A client's own span, which the service has to continue."""

    trace_id: str
    span_id: str

    @classmethod
    def new(cls) -> ClientTrace:
        trace = cls(secrets.token_hex(16), secrets.token_hex(8))
        MADE.add(trace.trace_id)
        return trace

    def header(self, sampled: bool = True) -> str:
        return f"00-{self.trace_id}-{self.span_id}-0{int(sampled)}"


def whole_trace(collector: Collector, client: ClientTrace) -> list[Received]:
    """The trace, when every process has sent what it should have."""

    def is_whole(_: list[Received]) -> bool:
        names = [kind(span) for span in collector.trace(client.trace_id)]
        return {"server", "lacuna.job", "lacuna.admission", "lacuna.sequence", "lacuna.generate"} <= set(names)

    collector.wait_for(is_whole)
    return collector.trace(client.trace_id)


def kind(span: Received) -> str:
    return span.name if span.name.startswith("lacuna.") and "/" not in span.name else "server"


def check(spans: list[Received], client: ClientTrace) -> None:
    """Every span has the parent that it should have, lies within it, and comes from the process that it should."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        assert span.resource["lacuna.component"] == COMPONENTS.get(kind(span), "engine")
        if kind(span) == "server":
            assert span.parent_id == client.span_id
            continue
        parent = by_id[span.parent_id]
        assert kind(parent) == PARENTS[span.name]
        assert parent.start_ns - SLACK_NS <= span.start_ns <= span.end_ns <= parent.end_ns + SLACK_NS
        assert not span.is_error
    names = [kind(span) for span in spans]
    assert [names.count(name) for name in ("server", "lacuna.job", "lacuna.admission")] == [1, 1, 1]
    assert set(names) == {"server", *PARENTS}
    assert len({span.resource["service.instance.id"] for span in spans}) == 3, "three processes"


def one(spans: list[Received], name: str) -> Received:
    (span,) = [span for span in spans if kind(span) == name]
    return span


def attributes_of(name: str) -> set[str]:
    return set(next(spec for spec in (*DEPLOYMENT_SPANS, *ENGINE_SPANS) if spec.name == name).attributes)


@pytest.mark.parametrize("stream", [False, True])
def test_an_http_request_is_one_trace(http: httpx.Client, collector: Collector, stream: bool) -> None:
    client = ClientTrace.new()
    body = {"model": SDAR, "prompt": "def add(a, b):", "max_tokens": 24, "stream": stream}
    response = http.post("/v1/completions", json=body, headers={"traceparent": client.header()})
    response.raise_for_status()
    spans = whole_trace(collector, client)

    check(spans, client)
    server, job = one(spans, "server"), one(spans, "lacuna.job")
    assert server.name == "POST /v1/completions"
    assert set(server.attributes) <= attributes_of(HTTP_SERVER.name)
    assert response.headers["x-trace-id"] == client.trace_id
    assert response.headers["traceresponse"].split("-")[2] == server.span_id
    blocks = [span for span in spans if span.name == "lacuna.block"]
    assert sum(span.attributes["lacuna.forwards"] for span in blocks) == job.attributes["lacuna.forwards"]
    assert one(spans, "lacuna.admission").attributes["lacuna.replicas"] == (
        one(spans, "lacuna.generate").resource["service.instance.id"],
    )
    assert job.attributes["lacuna.strategy.chosen_by"] == "default"


@pytest.mark.parametrize("how", ["metadata", "message", "stream"])
def test_a_grpc_call_is_one_trace(stub: GenerationStub, collector: Collector, how: str) -> None:
    client = ClientTrace.new()
    fields: dict[str, Any] = {"model": LLADA, "text": "1 + 1 =", "sampling": pb.Sampling(max_tokens=16)}
    metadata = [("traceparent", client.header())]
    if how == "stream":
        call = stub.GenerateStream(pb.GenerateRequest(**fields), metadata=metadata)
        assert list(call)
        trailing = dict(call.trailing_metadata())
    else:
        own = {"traceparent": client.header()} if how == "message" else {}
        metadata = [("traceparent", ClientTrace.new().header())] if how == "message" else metadata
        _, done = stub.Generate.with_call(pb.GenerateRequest(**fields, **own), metadata=metadata)
        trailing = dict(done.trailing_metadata())
    spans = whole_trace(collector, client)

    check(spans, client)
    server = one(spans, "server")
    assert server.name == f"lacuna.v1.Generation/{'GenerateStream' if how == 'stream' else 'Generate'}"
    assert set(server.attributes) <= attributes_of(RPC_SERVER.name)
    assert server.attributes["rpc.response.status_code"] == "OK"
    assert trailing["x-trace-id"] == client.trace_id


def test_what_a_client_does_not_sample_leaves_no_orphan(http: httpx.Client, collector: Collector) -> None:
    unsampled, sampled = ClientTrace.new(), ClientTrace.new()
    before = {span.trace_id for span in collector.wait_for(lambda _: True)}
    for header in (unsampled.header(sampled=False), None, sampled.header()):
        body = {"model": SDAR, "prompt": "x", "max_tokens": 4}
        answer = http.post("/v1/completions", json=body, headers={"traceparent": header} if header else {})
        assert ("x-trace-id" in answer.headers) == (header == sampled.header())
    whole_trace(collector, sampled)
    late = MADE - {unsampled.trace_id, sampled.trace_id}
    new = {span.trace_id for span in collector.wait_for(lambda _: True)} - before - late
    assert new == {sampled.trace_id}


def test_a_wrong_request_ends_at_the_ingress(
    http: httpx.Client, collector: Collector, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    client = ClientTrace.new()
    answer = http.post("/v1/completions", json={"prompt": 5}, headers={"traceparent": client.header()})
    assert answer.headers["x-trace-id"] == client.trace_id
    eventually(lambda: bool(collector.trace(client.trace_id)))
    (server,) = collector.trace(client.trace_id)
    assert server.attributes["http.response.status_code"] == 400
    assert not server.is_error


def test_a_shadow_is_a_trace_of_its_own_with_a_link(http: httpx.Client, collector: Collector) -> None:
    client = ClientTrace.new()
    body = {"model": LLADA, "prompt": "1 + 1 =", "max_tokens": 8, "diffusion": {"arm": "careful"}}
    http.post("/v1/completions", json=body, headers={"traceparent": client.header()}).raise_for_status()
    spans = collector.wait_for(
        lambda spans: any(span.name == "lacuna.job" and client.trace_id in span.links for span in spans)
    )
    (shadow,) = [span for span in spans if client.trace_id in span.links]
    assert shadow.trace_id != client.trace_id
    assert not shadow.parent_id
    assert shadow.attributes["lacuna.shadow"] is True
    assert one(whole_trace(collector, client), "lacuna.job").attributes["lacuna.strategy.name"] == "speed/careful"
