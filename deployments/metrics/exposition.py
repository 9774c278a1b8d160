"""Samples as Prometheus reads them: its text format, or OpenMetrics where the scraper asks for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from deployments.metrics.catalogue import METRICS
from deployments.metrics.spec import Sample


def expose(samples: Iterable[Sample], accept: str = "") -> tuple[bytes, str]:
    """All metrics of the catalogue with these samples; returns the page and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(_Families(samples)), content_type


class _Families(Collector):
    """Samples grouped by their metrics, in the catalogue's order."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            self._samples[sample.name].append(sample)
        assert self._samples.keys() <= METRICS.keys(), "a sample of no known metric"

    def collect(self) -> Iterator[Metric]:
        for spec in METRICS.values():
            metric = Metric(spec.family, spec.help, spec.kind, "seconds" if spec.unit == "seconds" else "")
            for sample in self._samples[spec.name]:
                metric.add_sample(spec.family + sample.suffix, dict(sample.labels), sample.value)
            yield metric
