"""What every HTTP request passes before its route: request id, API key, size of the body, and the meter."""

from __future__ import annotations

import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api_keys import KeyRing
from deployments.callers import (
    REQUEST_ID_HEADER,
    Caller,
    check_request_id,
    loggable_request_id,
    new_request_id,
)
from deployments.http_errors import error_response
from deployments.logs.access import log_access
from deployments.logs.request_log import RequestLog, begin, end
from deployments.metrics.service_metrics import ServiceMetrics
from engine.errors import LacunaError, RequestTooLargeError

NO_ROUTE = "none"
CLIENT_CLOSED_REQUEST = 499


class HttpGate:
    """ASGI middleware. Puts a ``Caller`` into the request's state as ``caller``; a route may put the served model's id
    there as ``model``.

    The server in front (Serve's proxy, or the replica's own server) gives every request an ``x-request-id`` and repeats
    it in the answer, whatever the answer is. Only where none does, the gate sets it.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing,
        open_paths: Collection[str],
        max_body_bytes: int,
        metrics: ServiceMetrics,
        *,
        log_prompts: bool = False,
    ) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = frozenset(open_paths)
        self._open_below = tuple(path.removesuffix("*") for path in open_paths if path.endswith("/*"))
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics
        self._log_prompts = log_prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_CLOSED_REQUEST
        given = Headers(scope=scope).get(REQUEST_ID_HEADER)
        request_id = given or new_request_id("req")
        log = RequestLog(loggable_request_id(request_id), keeps_texts=self._log_prompts)
        token = begin(log)

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if given is None:
                    MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._pass(scope, receive, watched_send, request_id, log)
        except Exception:
            status = 500
            raise
        finally:
            self._finish(scope, log, status)
            end(token)

    def _finish(self, scope: Scope, log: RequestLog, status: int) -> None:
        """Count and log the request."""
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        log.model = scope["state"].get("model", "")
        self._metrics.request("http", route, log.model, status, time.monotonic() - log.started_s)
        log_access(log, "http", scope["method"], route, status)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, request_id: str, log: RequestLog) -> None:
        state = scope.setdefault("state", {})
        state["caller"] = Caller(request_id=request_id)
        try:
            caller = self._admit(scope, request_id)
            state["caller"] = caller
            log.api_key_name = caller.api_key_name
            body = await _read_body(Headers(scope=scope), receive, self._max_body_bytes)
        except LacunaError as error:
            await error_response(error, request_id)(scope, receive, send)
            return

        async def replay() -> Message:
            return body.pop(0) if body else await receive()

        await self._app(scope, replay, send)

    def _admit(self, scope: Scope, request_id: str) -> Caller:
        headers = Headers(scope=scope)
        check_request_id(request_id)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_open = path in self._open_paths or path.startswith(self._open_below)
        name = "" if is_open else self._keys.authenticate(headers.get("authorization"))
        return Caller(
            request_id=request_id,
            api_key_name=name,
            traceparent=headers.get("traceparent"),
            tracestate=headers.get("tracestate"),
            session_id=headers.get("x-session-id"),
        )


def caller_of(request: Request) -> Caller:
    """Who sent a request that has passed the gate."""
    caller: Caller = request.state.caller
    return caller


async def _read_body(headers: Headers, receive: Receive, limit: int) -> list[Message]:
    """The body's messages, for the route to read again; no more than ``limit`` bytes are ever kept."""
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    messages: list[Message] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > limit:
            raise _too_large(limit)
        if message["type"] != "http.request" or not message.get("more_body", False):
            return messages


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"The body is too large: at most {limit} bytes are allowed (max_body_bytes).")
