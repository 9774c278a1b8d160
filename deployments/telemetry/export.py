"""Sending spans to a collector, without a word per span when it is away."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from deployments.telemetry.settings import TelemetryConfig
from engine.errors import ConfigError

logger = logging.getLogger(__name__)

HTTP_PATH = "/v1/traces"
_EXPORTERS = "opentelemetry.exporter"
_QUEUE = "opentelemetry.sdk._shared_internal"


def build_exporter(config: TelemetryConfig) -> SpanExporter:
    """An exporter for the collector that the settings name; ConfigError for a protocol that there is none for."""
    headers = config.read_headers() or None
    if (protocol := _protocol(config)) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return QuietExporter(GrpcExporter(endpoint=config.otlp_endpoint or None, headers=headers))
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return QuietExporter(HttpExporter(endpoint=_http_url(config.otlp_endpoint), headers=headers))
    raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not grpc or http/protobuf", "telemetry.protocol")


class QuietExporter(SpanExporter):
    """Logs once when a collector stops taking spans and once when it takes them again. Owns what OpenTelemetry's
    exporters say in this process: their last message becomes part of the one that is logged here."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self._last = _LastMessage()
        exporters = logging.getLogger(_EXPORTERS)
        exporters.handlers, exporters.propagate = [self._last], False
        logging.getLogger(_QUEUE).addFilter(self._is_news)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            logger.warning("the collector takes no spans; they are lost until it does: %s", self._last.text)
        elif self._failing and not failing:
            logger.warning("the collector takes spans again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        logging.getLogger(_QUEUE).removeFilter(self._is_news)
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _is_news(self, _: logging.LogRecord) -> bool:
        """That the queue is full says nothing new while the collector is away."""
        return not self._failing


class _LastMessage(logging.Handler):
    """Remembers what was said last."""

    text = "no reason was given"

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def _protocol(config: TelemetryConfig) -> str:
    variables = (os.environ.get(f"OTEL_EXPORTER_OTLP_{kind}PROTOCOL") for kind in ("TRACES_", ""))
    return config.protocol or next(filter(None, variables), "grpc")


def _http_url(endpoint: str) -> str | None:
    """The exporter takes a given endpoint as it is: a collector's address alone needs the path of traces."""
    if not endpoint:
        return None
    return endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + HTTP_PATH
