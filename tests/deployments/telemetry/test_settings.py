from __future__ import annotations

import pytest

from deployments.config import AppConfig
from deployments.telemetry.settings import TelemetryConfig
from engine.errors import ConfigError

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def parse(**section: object) -> TelemetryConfig:
    return AppConfig.parse({"telemetry": section}).telemetry


def test_everything_is_off_by_default() -> None:
    config = AppConfig.parse({}).telemetry
    assert not config.is_on
    assert not config.record_prompts


def test_the_section_may_be_text() -> None:
    config = AppConfig.parse({"telemetry": '{"otlp_endpoint": "http://c:4317", "sampling_ratio": 0.1}'}).telemetry
    assert config.is_on
    assert config.sampling_ratio == 0.1


@pytest.mark.parametrize("variable", VARIABLES)
def test_opentelemetrys_variables_name_a_collector_too(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://c:4317")
    assert TelemetryConfig().is_on
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert not TelemetryConfig().is_on
    assert TelemetryConfig(otlp_endpoint="http://c:4317").is_on
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not TelemetryConfig(otlp_endpoint="http://c:4317").is_on


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ({"otlp_endpoint": "collector:4317"}, "telemetry.otlp_endpoint: not a URL"),
        ({"otlp_endpoint": "http://"}, "telemetry.otlp_endpoint: not a URL"),
        ({"protocol": "http/json"}, "telemetry.protocol"),
        ({"sampling_ratio": 2}, "telemetry.sampling_ratio"),
        ({"endpoint": "http://c"}, "unknown 'endpoint'"),
    ],
)
def test_wrong_settings_are_named(section: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        parse(**section)


def test_headers_come_from_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(headers={"Authorization": "env:COLLECTOR_TOKEN", "x-tenant": "a"})
    with pytest.raises(ConfigError, match="COLLECTOR_TOKEN"):
        config.read_headers()
    monkeypatch.setenv("COLLECTOR_TOKEN", "Bearer secret")
    assert config.read_headers() == {"authorization": "Bearer secret", "x-tenant": "a"}
