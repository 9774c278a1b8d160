"""The span of an HTTP request, after OpenTelemetry's semantic conventions for HTTP servers."""

from __future__ import annotations

from dataclasses import asdict

from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.telemetry.context import answer_headers, entered
from engine.telemetry import Attributes, parent_context, set_error, trace_headers

UNTRACED_PATHS = frozenset({"/health", "/healthz", "/metrics"})
"""Asked for every few seconds by machines."""
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})


class HttpTracing:
    """ASGI middleware around all others. What is inside sees the span where it would see the client's own
    ``traceparent``: as the next service behind a traced one does."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _path(scope) in UNTRACED_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        parent = parent_context(headers.get("traceparent"), headers.get("tracestate"))
        span = self._tracer.start_span(_method(scope), parent, SpanKind.SERVER, _attributes(scope, headers))
        inner = {**scope, "headers": _with_parent(scope, span)}

        async def telling_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                _note_status(span, message["status"])
                MutableHeaders(scope=message).update(answer_headers(span))
            await send(message)

        try:
            with entered(span):
                await self._app(inner, receive, telling_send)
        except Exception as error:
            set_error(span, error)
            raise
        finally:
            if route := getattr(inner.get("route"), "path", ""):
                span.update_name(f"{_method(scope)} {route}")
                span.set_attribute("http.route", route)
            span.end()


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "HTTP"


def _attributes(scope: Scope, headers: Headers) -> Attributes:
    """Known before the request is answered. The query is left out: it is the client's own text."""
    server, client = scope.get("server") or ("", 0), scope.get("client") or ("", 0)
    attributes: dict[str, str | int] = {
        "http.request.method": scope["method"] if scope["method"] in _METHODS else "_OTHER",
        "url.path": scope["path"],
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", ""),
        "server.address": server[0],
        "server.port": server[1] or 0,
        "client.address": client[0],
        "user_agent.original": headers.get("user-agent", ""),
    }
    return {name: value for name, value in attributes.items() if value}


def _with_parent(scope: Scope, span: Span) -> list[tuple[bytes, bytes]]:
    own = [(name, value) for name, value in scope["headers"] if name not in (b"traceparent", b"tracestate")]
    fields = asdict(trace_headers(span))
    return own + [(name.encode(), value.encode()) for name, value in fields.items() if value]


def _note_status(span: Span, status: int) -> None:
    """An error of the client's is none of the server's."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", str(status))
