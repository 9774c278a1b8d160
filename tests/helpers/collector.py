"""Real OTLP collectors in the test's process: spans arrive as a vendor's backend would get them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it was sent, with what its process said of itself. Ids are hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    is_error: bool
    attributes: Mapping[str, Any]
    events: tuple[str, ...]
    links: tuple[str, ...]
    resource: Mapping[str, Any]


@dataclass
class Collector(TraceServiceServicer):  # type: ignore[misc] # generated without annotations
    """What has arrived so far; ``headers`` are those of the last export."""

    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    _spans: list[Received] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        self.take(request, dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()

    def take(self, request: ExportTraceServiceRequest, headers: Mapping[str, str]) -> None:
        with self._arrived:
            self.headers = headers
            self._spans += received(request)
            self._arrived.notify_all()

    def trace(self, trace_id: str) -> list[Received]:
        """Its spans so far, in the order of their starts."""
        with self._arrived:
            return sorted((span for span in self._spans if span.trace_id == trace_id), key=lambda span: span.start_ns)

    def wait_for(self, enough: Callable[[list[Received]], bool], timeout_s: float = 20.0) -> list[Received]:
        """All spans, once there are enough; fails when that takes too long."""
        deadline = time.monotonic() + timeout_s
        with self._arrived:
            while not enough(self._spans):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"the spans did not come; there are {[span.name for span in self._spans]}"
                self._arrived.wait(left_s)
            return list(self._spans)


def received(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource_spans in request.resource_spans:
        resource = values(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Received(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                    attributes=values(span.attributes),
                    events=tuple(event.name for event in span.events),
                    links=tuple(link.trace_id.hex() for link in span.links),
                    resource=resource,
                )


def values(attributes: Any) -> dict[str, Any]:
    """Attributes by name; lists as tuples."""
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    return getattr(value, kind)


@contextmanager
def grpc_collector() -> Iterator[Collector]:
    """OTLP over gRPC."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(collector, server)
    collector.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


@contextmanager
def http_collector() -> Iterator[Collector]:
    """OTLP over HTTP, protobuf bodies at /v1/traces."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                collector.take(ExportTraceServiceRequest.FromString(body), dict(self.headers))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
