"""The router's span: how long a request waited for its place, and what it was given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from opentelemetry.trace import Tracer

from deployments.messages import Admission, AdmissionRequest
from engine.telemetry import parent_context, set_error


async def traced_admission(
    tracer: Tracer, request: AdmissionRequest, admit: Callable[[AdmissionRequest], Awaitable[Admission]]
) -> Admission:
    """``admit(request)`` with a span around it."""
    with tracer.start_as_current_span(
        "lacuna.admission",
        parent_context(request.traceparent, request.tracestate),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        span.set_attributes(
            {
                "gen_ai.request.model": request.model,
                "lacuna.job": request.key,
                "lacuna.sequences": len(request.shapes),
                "lacuna.priority": request.priority,
                "lacuna.resumed": request.resumed,
                "lacuna.spare": request.is_spare,
            }
        )
        try:
            admission = await admit(request)
        except Exception as error:
            set_error(span, error)
            raise
        span.set_attributes(
            {
                "lacuna.replicas": admission.replicas,
                "lacuna.waited_s": admission.waited_s,
                "lacuna.queued": admission.queued,
                "lacuna.pressure": admission.pressure,
                "lacuna.predicted_positions": admission.work,
            }
        )
        return admission
