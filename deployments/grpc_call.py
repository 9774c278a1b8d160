"""One RPC: who called, within what limits, and how it ends. Shared by every method of the services."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from deployments.api_keys import KeyRing
from deployments.callers import (
    REQUEST_ID_HEADER,
    Caller,
    check_request_id,
    loggable_request_id,
    new_request_id,
)
from deployments.errors import describe
from deployments.logs.access import log_access
from deployments.logs.request_log import RequestLog, begin
from deployments.metrics.service_metrics import ServiceMetrics
from engine.errors import RequestTooLargeError

TIMEOUT_KEY = "x-lacuna-timeout-ms"
"""Metadata in which the proxy passes on what is left of the client's deadline; Serve itself does not."""
CANCELLED = 499

Answer = TypeVar("Answer")


class RpcContext(Protocol):
    """What is used of Serve's gRPC context."""

    def set_code(self, code: grpc.StatusCode) -> None: ...

    def set_details(self, details: str) -> None: ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None: ...

    def invocation_metadata(self) -> Sequence[tuple[str, str]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """Which method, about which served model ("" for none), and whether it needs no API key."""

    name: str
    model: str = ""
    is_open: bool = False


class RpcFailedError(Exception):
    """Ends a stream whose status has been set; Serve sends exactly that status."""


class RpcGate:
    """What every RPC passes: request id, API key, size of the message, the meter; and how failures are told.

    A failure sets the call's status, so that Serve sends neither traceback nor host names. An answer at once is then an
    empty message, which gRPC does not send: Serve would log a raised error as a failure of the replica. A stream has to
    raise, because Serve reads its status with chunks and errors only.
    """

    def __init__(
        self, keys: KeyRing, max_message_bytes: int, metrics: ServiceMetrics, *, log_prompts: bool = False
    ) -> None:
        self._keys = keys
        self._max_message_bytes = max_message_bytes
        self._metrics = metrics
        self._log_prompts = log_prompts

    async def unary(
        self,
        rpc: Rpc,
        request: Message,
        context: RpcContext,
        answer: Callable[[Caller], Awaitable[Answer]],
        empty: Callable[[], Answer],
    ) -> Answer:
        """``answer(caller)``, or an empty message and the call's status."""
        log, status = self._begin(context), CANCELLED
        caller = Caller()
        try:
            caller = self._admit(rpc, request, context, log)
            result = await answer(caller)
            status = 200
        except Exception as error:  # noqa: BLE001 - becomes the call's status
            status = fail(context, error, caller.request_id)
            return empty()
        else:
            return result
        finally:
            self._finish(rpc, log, status)

    async def stream(
        self, rpc: Rpc, request: Message, context: RpcContext, chunks: Callable[[Caller], AsyncGenerator[Answer]]
    ) -> AsyncGenerator[Answer]:
        """``chunks(caller)``, or the call's status and RpcFailedError."""
        log, status = self._begin(context), CANCELLED
        caller = Caller()
        try:
            caller = self._admit(rpc, request, context, log)
            source = chunks(caller)
            async with aclosing(source):
                async for chunk in source:
                    yield chunk
            status = 200
        except Exception as error:  # noqa: BLE001 - becomes the call's status
            status = fail(context, error, caller.request_id)
            raise RpcFailedError("the status of the call is set") from None
        finally:
            self._finish(rpc, log, status)

    def _begin(self, context: RpcContext) -> RequestLog:
        """Every call has a task of its own, which works on this request from now on."""
        given = dict(context.invocation_metadata()).get(REQUEST_ID_HEADER, "")
        log = RequestLog(loggable_request_id(given) if given else "", keeps_texts=self._log_prompts)
        begin(log)
        return log

    def _finish(self, rpc: Rpc, log: RequestLog, status: int) -> None:
        """Count and log the call."""
        log.model = rpc.model
        self._metrics.request("grpc", rpc.name, rpc.model, status, time.monotonic() - log.started_s)
        log_access(log, "grpc", "RPC", rpc.name, status)

    def _admit(self, rpc: Rpc, request: Message, context: RpcContext, log: RequestLog) -> Caller:
        metadata = dict(context.invocation_metadata())
        given = metadata.get(REQUEST_ID_HEADER) or new_request_id("req")
        context.set_trailing_metadata([(REQUEST_ID_HEADER, given)])
        request_id = check_request_id(given)
        log.request_id = request_id
        name = "" if rpc.is_open else self._keys.authenticate(metadata.get("authorization"))
        log.api_key_name = name
        if request.ByteSize() > self._max_message_bytes:
            raise RequestTooLargeError(
                f"The message is too large: at most {self._max_message_bytes} bytes are allowed "
                "(grpc_max_message_bytes)."
            )
        timeout_ms = metadata.get(TIMEOUT_KEY, "")
        traceparent, tracestate = trace_of(request, metadata)
        return Caller(
            request_id=request_id,
            api_key_name=name,
            traceparent=traceparent,
            tracestate=tracestate,
            session_id=metadata.get("session_id"),
            timeout_s=int(timeout_ms) / 1000 if timeout_ms.isdigit() else None,
        )


def trace_of(request: Message, metadata: Mapping[str, str]) -> tuple[str | None, str | None]:
    """W3C's ``traceparent`` and ``tracestate`` of a call; the message's own trace wins over the metadata's."""
    own = getattr(request, "traceparent", "")
    return own or metadata.get("traceparent"), None if own else metadata.get("tracestate")


def fail(context: RpcContext, error: Exception, request_id: str) -> int:
    """Set the status of the call; returns the HTTP status that says the same."""
    reply = describe(error, request_id or "without an id")
    context.set_code(reply.row.grpc_code)
    context.set_details(reply.grpc_details())
    return reply.row.http_status
