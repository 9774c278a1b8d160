"""A process's tracing: its own provider, set up once, flushed at its end. Loads no SDK where tracing is off."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry.trace import NoOpTracerProvider, Tracer, TracerProvider

from deployments.telemetry.settings import TelemetryConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A provider and what its spans go to."""

    provider: SdkTracerProvider
    exporter: SpanExporter


@dataclass(frozen=True, slots=True)
class Tracing:
    """Owns the provider of this process; without a ``pipeline`` tracing is off.

    It is not the global one: whatever else in the process makes spans is not ours to send, and a global provider that
    somebody else has set stays theirs.
    """

    pipeline: Pipeline | None = None
    record_prompts: bool = False

    @property
    def provider(self) -> TracerProvider:
        return NoOpTracerProvider() if self.pipeline is None else self.pipeline.provider

    @property
    def is_on(self) -> bool:
        return self.pipeline is not None

    def tracer(self) -> Tracer:
        """For the spans of ``deployments``."""
        return self.provider.get_tracer("lacuna.deployments", version("lacuna-serve"))

    def close(self) -> None:
        """Send what is left, for a few seconds at most; a second call does nothing."""
        if self.pipeline is None:
            return
        worker = threading.Thread(target=self.pipeline.provider.shutdown, name="lacuna-telemetry-close", daemon=True)
        worker.start()
        worker.join(CLOSE_TIMEOUT_S)
        if worker.is_alive():
            logger.warning("the last spans could not be sent within %g s and are lost", CLOSE_TIMEOUT_S)
            self.pipeline.exporter.shutdown()  # it waits for the collector no longer


OFF = Tracing()


def rank_tracing(config: TelemetryConfig, replica: str, rank: int) -> Tracing:
    """That of a rank of a sharded replica, in the rank's own process."""
    return start_tracing(config, "rank", lambda: f"{replica}/{rank}")


def start_tracing(config: TelemetryConfig, component: str, instance: Callable[[], str]) -> Tracing:
    """Tracing as the settings and OTEL_* variables say. ``component`` is the part of the application that this process
    is, ``instance`` gives the process's own name. ConfigError where the settings are wrong."""
    if not config.is_on:
        return OFF
    from deployments.telemetry.provider import build_pipeline

    return Tracing(build_pipeline(config, component, instance()), config.record_prompts)
