"""Spans as a test sees them: recorded in memory, held to the catalogue, asked for by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from engine.span_catalog import SpanSpec

SAMPLED = "00-0123456789abcdef0123456789abcdef-00000000000000aa-01"
UNSAMPLED = SAMPLED[:-1] + "0"


@dataclass
class Recorder:
    """A provider whose finished spans can be looked at."""

    sampler: Sampler = ALWAYS_ON
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.provider = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """In the order of their starts."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def said(span: ReadableSpan) -> dict[str, Any]:
    """Its attributes."""
    return dict(span.attributes or {})


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Of that parent, in its trace, and within its time."""
    (start, end), (first, last) = times(span), times(parent)
    return (
        span.parent is not None
        and span.parent.span_id == span_id(parent)
        and trace_id(span) == trace_id(parent)
        and first <= start <= end <= last
    )


def check_against(catalog: Sequence[SpanSpec], spans: Sequence[ReadableSpan]) -> None:
    """Every attribute is in the catalogue, under the name of its span."""
    specs = {spec.name: spec for spec in catalog}
    for span in spans:
        unknown = set(said(span)) - set(specs[span.name].attributes)
        assert not unknown, f"{span.name}: {unknown}"
