"""What is known of a metric before it is measured, and one measured value of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

PREFIX = "lacuna_"

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["ingress", "router", "engine", "scrape"]
Row = Literal["Traffic", "Latency", "Queue and autoscaling", "Engine and decoding", "Errors", "Experiments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """``name`` is the family's, without the prefix and without ``_total``; ``unit`` is what one of it is (a name ends
    with it where it is one of Prometheus' base units). ``labels`` are all labels of a sample, its source's ``replica``
    included. ``row`` is where the dashboard has it."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...]
    source: Source
    row: Row
    buckets: tuple[float, ...] = ()

    @property
    def family(self) -> str:
        return PREFIX + self.name

    @property
    def series(self) -> str:
        """The name that queries of a counter or gauge use."""
        return f"{self.family}_total" if self.kind == "counter" else self.family


@dataclass(frozen=True, slots=True)
class Section:
    """Makes the metrics of one source and one row of the dashboard, which have ``labels`` in common."""

    source: Source
    row: Row
    labels: tuple[str, ...]

    def counter(self, name: str, unit: str, text: str, *labels: str) -> MetricSpec:
        return self._spec(name, "counter", unit, text, labels)

    def gauge(self, name: str, unit: str, text: str, *labels: str) -> MetricSpec:
        return self._spec(name, "gauge", unit, text, labels)

    def histogram(self, name: str, unit: str, buckets: tuple[float, ...], text: str, *labels: str) -> MetricSpec:
        return self._spec(name, "histogram", unit, text, labels, buckets)

    def _spec(
        self, name: str, kind: Kind, unit: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = ()
    ) -> MetricSpec:
        return MetricSpec(
            name=name,
            kind=kind,
            unit=unit,
            help=text,
            labels=(*self.labels, *labels),
            source=self.source,
            row=self.row,
            buckets=buckets,
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of the metric ``name``; ``suffix`` is what follows the family's name ("_total", "_bucket" ...)."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""

    def labelled(self, **labels: str) -> Sample:
        """The sample with further labels."""
        return Sample(self.name, self.value, {**self.labels, **labels}, self.suffix)


def gauge(name: str, value: float, **labels: str) -> Sample:
    return Sample(name, value, labels)


def counter(name: str, value: float, **labels: str) -> Sample:
    return Sample(name, value, labels, "_total")


def histogram(name: str, bounds: Sequence[float], counts: Sequence[int], total: float, **labels: str) -> list[Sample]:
    """``counts[i]`` values lie in the i-th bucket alone, the last above all ``bounds``; ``total`` is their sum."""
    return [*_buckets(name, bounds, counts, labels), Sample(name, total, labels, "_sum")]


def _buckets(name: str, bounds: Sequence[float], counts: Sequence[int], labels: Mapping[str, str]) -> Iterator[Sample]:
    seen = 0
    for bound, count in zip((*map(str, map(float, bounds)), "+Inf"), counts, strict=True):
        seen += count
        yield Sample(name, seen, {**labels, "le": bound}, "_bucket")
    yield Sample(name, seen, labels, "_count")
