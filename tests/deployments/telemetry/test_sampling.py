from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.trace import Link

from deployments.telemetry.provider import make_provider
from deployments.telemetry.settings import TelemetryConfig
from engine.telemetry import parent_context
from tests.helpers.traces import SAMPLED, UNSAMPLED


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize(("parent", "kept"), [(SAMPLED, True), (UNSAMPLED, False), (None, None)])
def test_a_parent_decides_and_without_one_the_ratio(ratio: float, parent: str | None, kept: bool | None) -> None:
    tracer = make_provider(TelemetryConfig(sampling_ratio=ratio), "ingress", "i").get_tracer("t")
    span = tracer.start_span("a", parent_context(parent))
    assert span.is_recording() is (bool(ratio) if kept is None else kept)
    assert span.get_span_context().is_valid, "what is not kept has ids too: others must not keep it either"


def test_about_as_many_as_the_ratio_says() -> None:
    tracer = make_provider(TelemetryConfig(sampling_ratio=0.25), "ingress", "i").get_tracer("t")
    kept = sum(tracer.start_span("a", parent_context(None)).is_recording() for _ in range(1000))
    assert 150 < kept < 350


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize(("linked", "kept"), [(SAMPLED, True), (UNSAMPLED, False)])
def test_what_begins_with_a_link_follows_it(ratio: float, linked: str, kept: bool) -> None:
    tracer = make_provider(TelemetryConfig(sampling_ratio=ratio), "ingress", "i").get_tracer("t")
    link = Link(trace.get_current_span(parent_context(linked)).get_span_context())
    assert tracer.start_span("a", parent_context(None), links=[link]).is_recording() is kept
    assert tracer.start_span("a", parent_context(SAMPLED), links=[link]).is_recording(), "a parent comes first"
