"""What the current task is part of."""

from __future__ import annotations

from opentelemetry import trace


def current_ids() -> tuple[str, str] | None:
    """Trace id and span id of the current span in hexadecimal digits, as logs name them; None outside of any trace.

    A span that is not sampled has ids as well: they are those that its client and other services know.
    """
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
