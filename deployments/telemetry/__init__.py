"""Tracing with OpenTelemetry: one trace from a client's request through router and engines."""

from deployments.telemetry.context import current_ids

__all__ = ["current_ids"]
