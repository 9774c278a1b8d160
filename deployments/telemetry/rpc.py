"""The span of a gRPC call, after OpenTelemetry's semantic conventions for RPC servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from deployments.api_keys import KeyRing
from deployments.callers import Caller
from deployments.grpc_call import Rpc, RpcContext, RpcGate, trace_of
from deployments.logs.request_log import RequestLog
from deployments.metrics.service_metrics import ServiceMetrics
from deployments.telemetry.context import answer_headers, entered, within
from engine.telemetry import parent_context, trace_headers

UNTRACED_RPCS = frozenset({"Check", "Watch"})
"""Asked for every few seconds by machines, or open for ever."""
_FAILURES = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The conventions count these as errors of a server."""

Answer = TypeVar("Answer")


class TracedContext:
    """A call as the gate sees it, whose status and trailing metadata the span hears of."""

    def __init__(self, context: RpcContext, span: Span) -> None:
        self._context = context
        self.span = span

    def set_code(self, code: grpc.StatusCode) -> None:
        """The call has failed."""
        self.span.set_attribute("rpc.response.status_code", code.name)
        if code.name in _FAILURES:
            self.span.set_status(StatusCode.ERROR)
            self.span.set_attribute("error.type", code.name)
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        """For the client only: it may repeat the client's words."""
        self._context.set_details(details)

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None:
        """With the trace beside it."""
        self._context.set_trailing_metadata([*trailing_metadata, *answer_headers(self.span).items()])

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """The client's."""
        return self._context.invocation_metadata()


class TracedRpcGate(RpcGate):
    """The gate, with a span around each call that becomes the parent of what the call asks for."""

    def __init__(
        self,
        tracer: Tracer,
        service: str,
        keys: KeyRing,
        max_message_bytes: int,
        metrics: ServiceMetrics,
        *,
        log_prompts: bool = False,
    ) -> None:
        super().__init__(keys, max_message_bytes, metrics, log_prompts=log_prompts)
        self._tracer = tracer
        self._service = service

    async def unary(
        self,
        rpc: Rpc,
        request: Message,
        context: RpcContext,
        answer: Callable[[Caller], Awaitable[Answer]],
        empty: Callable[[], Answer],
    ) -> Answer:
        if rpc.name in UNTRACED_RPCS:
            return await super().unary(rpc, request, context, answer, empty)
        with self._span(rpc, request, context) as span, entered(span):
            return await super().unary(rpc, request, TracedContext(context, span), answer, empty)

    async def stream(
        self, rpc: Rpc, request: Message, context: RpcContext, chunks: Callable[[Caller], AsyncGenerator[Answer]]
    ) -> AsyncGenerator[Answer]:
        if rpc.name in UNTRACED_RPCS:
            source = super().stream(rpc, request, context, chunks)
            async with aclosing(source):
                async for chunk in source:
                    yield chunk
            return
        with self._span(rpc, request, context) as span:
            source = within(span, super().stream(rpc, request, TracedContext(context, span), chunks))
            async with aclosing(source):
                async for chunk in source:
                    yield chunk

    def _admit(self, rpc: Rpc, request: Message, context: RpcContext, log: RequestLog) -> Caller:
        caller = super()._admit(rpc, request, context, log)
        if not isinstance(context, TracedContext):
            return caller
        own = trace_headers(context.span)
        return replace(caller, traceparent=own.traceparent, tracestate=own.tracestate)

    @contextmanager
    def _span(self, rpc: Rpc, request: Message, context: RpcContext) -> Iterator[Span]:
        method = f"{self._service}/{rpc.name}"
        parent = parent_context(*trace_of(request, dict(context.invocation_metadata())))
        attributes = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": "OK"}
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, attributes)
        try:
            yield span
        except (GeneratorExit, asyncio.CancelledError):
            span.set_attribute("rpc.response.status_code", "CANCELLED")
            raise
        finally:
            span.end()
