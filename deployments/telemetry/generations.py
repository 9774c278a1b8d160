"""The engine replica's span: one attempt at one sequence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span, Tracer

from deployments.messages import GenerateCall
from engine.telemetry import parent_context, set_error


@contextmanager
def generation(tracer: Tracer, call: GenerateCall) -> Iterator[Span]:
    """The span of ``call``, until the block ends; it is not made the current one."""
    span = tracer.start_span("lacuna.generate", parent_context(call.traceparent, call.tracestate))
    span.set_attributes({"lacuna.request_id": call.request_id, "lacuna.attempt": call.attempt})
    if call.session_id is not None:
        span.set_attribute("session.id", call.session_id)
    try:
        yield span
    except (GeneratorExit, asyncio.CancelledError):
        span.set_attribute("lacuna.cancelled", True)
        raise
    except Exception as error:
        set_error(span, error)
        raise
    finally:
        span.end()
