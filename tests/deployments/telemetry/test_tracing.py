"""A process's tracing against real collectors, over both protocols, and without one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from opentelemetry import trace

from deployments.telemetry import tracing as tracing_module
from deployments.telemetry.settings import TelemetryConfig
from deployments.telemetry.tracing import OFF, Tracing, start_tracing
from engine.errors import ConfigError
from tests.helpers.collector import Collector, grpc_collector, http_collector
from tests.ports import free_port

Receiver = Callable[[], AbstractContextManager[Collector]]
RECEIVERS: list[tuple[Receiver, str]] = [(grpc_collector, "grpc"), (http_collector, "http/protobuf")]


def start(**section: object) -> Tracing:
    return start_tracing(TelemetryConfig.model_validate(section), "engine", lambda: "replica-1")


@pytest.mark.parametrize(("receiver", "protocol"), RECEIVERS)
def test_closing_sends_what_is_left(receiver: Receiver, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTOR_TOKEN", "secret")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=here,service.version=other")
    with receiver() as collector:
        tracing = start(
            otlp_endpoint=collector.url,
            protocol=protocol,
            headers={"x-token": "env:COLLECTOR_TOKEN"},
            service_namespace="space",
            resource_attributes={"zone": "a"},
        )
        tracing.tracer().start_span("a").end()
        tracing.close()
        tracing.close()
        (span,) = collector.wait_for(lambda spans: len(spans) == 1)

    assert collector.headers["x-token"] == "secret"
    assert span.name == "a"
    assert span.resource["service.name"] == "lacuna"
    assert span.resource["service.instance.id"] == "replica-1"
    assert (span.resource["lacuna.component"], span.resource["zone"], span.resource["host.name"]) == (
        "engine",
        "a",
        "here",
    )
    assert span.resource["service.version"] != "other", "settings come before the environment"


@pytest.mark.parametrize(("receiver", "protocol"), RECEIVERS)
def test_the_standard_variables_are_enough(receiver: Receiver, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=mine")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        tracing = start()
        tracing.tracer().start_span("a").end()
        (span,) = collector.wait_for(lambda spans: len(spans) == 1)
        tracing.close()
    assert span.resource["service.name"] == "theirs"
    assert collector.headers["x-token"] == "mine"


def test_a_sampler_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    open_, decided = (start(otlp_endpoint="http://127.0.0.1:1", **more) for more in ({}, {"sampling_ratio": 1.0}))
    assert not open_.tracer().start_span("a").is_recording()
    assert decided.tracer().start_span("a").is_recording()
    for tracing in (open_, decided):
        tracing.close()


def test_an_unknown_protocol_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(ConfigError, match="http/json"):
        start(otlp_endpoint="http://127.0.0.1:1")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_that_is_away_is_told_once_and_delays_nobody(
    protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setattr(tracing_module, "CLOSE_TIMEOUT_S", 0.5)
    tracing = start(otlp_endpoint=f"http://127.0.0.1:{free_port()}", protocol=protocol)
    assert tracing.pipeline is not None
    with caplog.at_level(logging.INFO):
        started_s = time.monotonic()
        for _ in range(3):
            tracing.tracer().start_span("a").end()
        assert time.monotonic() - started_s < 0.8, "three spans that wait for their export take 0.9"
        tracing.pipeline.provider.force_flush()
        tracing.tracer().start_span("b").end()
        tracing.pipeline.provider.force_flush()
        tracing.close()
    assert time.monotonic() - started_s < 5
    told = [record for record in caplog.records if "takes no spans" in record.message]
    assert len(told) == 1
    assert "no reason was given" not in told[0].message
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry.exporter")]


def test_when_the_collector_comes_back_that_is_told_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from deployments.telemetry.export import QuietExporter

    inner = InMemorySpanExporter()
    quiet = QuietExporter(inner)
    results = iter([SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS])
    monkeypatch.setattr(inner, "export", lambda _: next(results))
    queue = logging.getLogger("opentelemetry.sdk._shared_internal")
    with caplog.at_level(logging.INFO):
        quiet.export([])
        queue.warning("Queue full, dropping %s.", "spans")
        quiet.export([])
        quiet.export([])
    quiet.shutdown()
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "the collector takes no spans",
        "the collector takes spans again",
    ]


def test_nobody_elses_provider_is_touched() -> None:
    before = trace.get_tracer_provider()
    tracing = start(otlp_endpoint="http://127.0.0.1:1")
    assert trace.get_tracer_provider() is before
    assert tracing.provider is not before
    tracing.close()


def test_where_it_is_off_there_is_nothing() -> None:
    tracing = start()
    assert tracing is OFF
    assert not tracing.is_on
    assert not tracing.tracer().start_span("a").is_recording()
    tracing.close()
