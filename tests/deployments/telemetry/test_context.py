from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from deployments.telemetry import current_ids


def test_outside_of_a_trace_there_are_no_ids() -> None:
    assert current_ids() is None


def test_the_ids_are_those_of_the_current_span() -> None:
    context = SpanContext(trace_id=0xABC, span_id=0x12, is_remote=True)
    with trace.use_span(NonRecordingSpan(context)):
        assert current_ids() == (f"{0xABC:032x}", f"{0x12:016x}")
    assert current_ids() is None
