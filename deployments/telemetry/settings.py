"""The section ``telemetry`` of the application's settings."""

from __future__ import annotations

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from deployments.settings import Settings, from_environment, from_text

TextDict = Annotated[dict[str, str], BeforeValidator(from_text)]


class TelemetryConfig(Settings):
    """Where traces go. What is left open here is as OpenTelemetry's own variables (OTEL_*) say."""

    otlp_endpoint: str = Field(
        default="",
        description="Collector that takes spans over OTLP, e.g. http://collector:4317; empty: "
        "OTEL_EXPORTER_OTLP_ENDPOINT, and without that no traces are made.",
    )
    protocol: Literal["", "grpc", "http/protobuf"] = Field(
        default="", description="How spans are sent; empty: OTEL_EXPORTER_OTLP_PROTOCOL, else grpc."
    )
    headers: TextDict = Field(
        default={},
        description="Headers sent to the collector; a value `env:NAME` is read from that variable in each process.",
    )
    sampling_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the requests that are traced of those whose client does not say (a client's "
        "`traceparent` decides for itself); empty: OTEL_TRACES_SAMPLER, else all.",
    )
    service_name: str = Field(default="", description="`service.name`; empty: OTEL_SERVICE_NAME, else lacuna.")
    service_namespace: str = Field(default="", description="`service.namespace`; empty: none.")
    resource_attributes: TextDict = Field(
        default={}, description="More attributes of every process, e.g. {deployment.environment.name: staging}."
    )
    record_prompts: bool = Field(
        default=False, description="Put prompts and answers into the traces; whoever reads traces reads them."
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        url = urlsplit(value)
        if value and (url.scheme not in ("http", "https") or not url.hostname):
            raise ValueError(f"not a URL: {value!r}; write http://HOST:PORT or https://HOST:PORT")
        return value

    @property
    def is_on(self) -> bool:
        """Whether a collector is named, here or by OpenTelemetry's variables, and nothing forbids its use."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return False
        if self.otlp_endpoint:
            return True
        named = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT") for kind in ("TRACES_", ""))
        return named and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"

    def read_headers(self) -> dict[str, str]:
        """The headers with their values; ConfigError where a variable is not set in this process."""
        setting = "telemetry.headers"
        return {
            name.lower(): value if (secret := from_environment(value, setting)) is None else secret
            for name, value in self.headers.items()
        }
