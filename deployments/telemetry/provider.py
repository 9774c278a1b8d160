"""From settings to OpenTelemetry's SDK."""

from __future__ import annotations

import os
from importlib.metadata import version

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from deployments.telemetry.export import build_exporter
from deployments.telemetry.sampling import FollowLinks, by_ratio
from deployments.telemetry.settings import TelemetryConfig
from deployments.telemetry.tracing import Pipeline

DEFAULT_SERVICE = "lacuna"


def build_pipeline(config: TelemetryConfig, component: str, instance: str) -> Pipeline:
    """A provider whose spans a thread of its own sends; ConfigError where the settings are wrong."""
    exporter = build_exporter(config)
    provider = make_provider(config, component, instance)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Pipeline(provider, exporter)


def make_provider(config: TelemetryConfig, component: str, instance: str) -> TracerProvider:
    """A provider that samples as it should, and sends nothing yet."""
    sampler = None if config.sampling_ratio is None else by_ratio(config.sampling_ratio)
    provider = TracerProvider(sampler, _resource(config, component, instance), shutdown_on_exit=False)
    provider.sampler = FollowLinks(provider.sampler)  # without a ratio, it is what OTEL_TRACES_SAMPLER says
    return provider


def _resource(config: TelemetryConfig, component: str, instance: str) -> Resource:
    """What this process is. OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME add what is not said here."""
    attributes = {
        "service.version": version("lacuna-serve"),
        "service.instance.id": instance,
        "lacuna.component": component,
        **config.resource_attributes,
    }
    if config.service_namespace:
        attributes["service.namespace"] = config.service_namespace
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if config.service_name or not named:
        attributes["service.name"] = config.service_name or DEFAULT_SERVICE
    return Resource.create(attributes)
