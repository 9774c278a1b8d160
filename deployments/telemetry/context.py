"""The current span, and what a client is told of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import TypeVar

from opentelemetry import trace
from opentelemetry.trace import Span

T = TypeVar("T")


def current_ids() -> tuple[str, str] | None:
    """Trace id and span id of the current span in hexadecimal digits, as logs name them; None outside of any trace.

    A span that is not sampled has ids as well: they are those that its client and other services know.
    """
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)


def answer_headers(span: Span) -> dict[str, str]:
    """By which a client finds the trace of its request: the id alone, and W3C's draft for answers. Nothing for what is
    not recorded."""
    context = span.get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return {}
    trace_id = trace.format_trace_id(context.trace_id)
    return {"x-trace-id": trace_id, "traceresponse": f"00-{trace_id}-{trace.format_span_id(context.span_id)}-01"}


def entered(span: Span) -> AbstractContextManager[Span]:
    """Makes ``span`` the current one; it is neither ended nor told of errors. Never around a ``yield`` of an
    asynchronous generator, which may go on in another context: see :func:`within`."""
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


async def within(span: Span, stream: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Items of ``stream``, each made while ``span`` is the current one; so is its end."""
    try:
        while True:
            with entered(span):
                try:
                    item = await anext(stream)
                except StopAsyncIteration:
                    return
            yield item
    finally:
        with entered(span):
            await stream.aclose()
