"""What one ingress replica measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from deployments.metrics.catalogue import INGRESS
from deployments.metrics.spec import PREFIX, MetricSpec, Sample, counter, gauge
from engine.outputs import Usage

if TYPE_CHECKING:
    from deployments.experiments.ledger.writer import LedgerStats
    from deployments.experiments.shadow import ShadowStats

UNFINISHED = "unfinished"
"""Stands for the strategy of requests that ended before an engine said what it had used."""
COSTS = ("prompt_tokens", "completion_tokens", "forwards", "denoising_steps", "positions_computed")
KEPT_ELSEWHERE = ("shadow_runs", "ledger_records", "ledger_failures", "ledger_pending_records", "ledger_healthy")


class ServiceMetrics:
    """Owns the counts of one ingress replica. Safe to use from several threads, as prometheus_client is."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self._registry = CollectorRegistry()
        own = [spec for spec in INGRESS if spec.name not in KEPT_ELSEWHERE]
        self._counters = {spec.name: self._counter(spec) for spec in own if spec.kind == "counter"}
        self._gauges = {spec.name: self._gauge(spec) for spec in own if spec.kind == "gauge"}
        self._histograms = {spec.name: self._histogram(spec) for spec in own if spec.kind == "histogram"}

    def begin(self, models: Iterable[str]) -> None:
        """Show these models' counts from 0 on: a counter that begins at 1 has not increased for Prometheus."""
        for model in models:
            self._counters["replays"].labels(model)
            self._gauges["generations_in_flight"].labels(model)
            self._histograms["queue_wait_seconds"].labels(model)

    def request(self, transport: str, route: str, model: str, http_status: int, seconds: float) -> None:
        """An answered request. ``route`` and ``model`` come from the server's own tables, never from the client."""
        self._counters["requests"].labels(transport, route, model, f"{http_status // 100}xx").inc()
        self._histograms["request_duration_seconds"].labels(transport, route).observe(seconds)

    @contextmanager
    def in_flight(self, model: str) -> Iterator[None]:
        """Counts a generation request while it waits or runs."""
        in_flight = self._gauges["generations_in_flight"].labels(model)
        in_flight.inc()
        try:
            yield
        finally:
            in_flight.dec()

    def admitted(self, model: str, waited_s: float) -> None:
        """The router gave a request its place."""
        self._histograms["queue_wait_seconds"].labels(model).observe(waited_s)

    def replayed(self, model: str) -> None:
        """A sequence goes on at another replica."""
        self._counters["replays"].labels(model).inc()

    def finished(self, model: str, arm: str, usage: Usage, seconds: float) -> None:
        """All sequences of a request have ended."""
        labels = model, _strategy(usage), arm
        self._histograms["generation_duration_seconds"].labels(*labels).observe(seconds)
        self._histograms["tokens_per_forward"].labels(*labels).observe(usage.tokens_per_forward)
        self._histograms["forwards_per_request"].labels(*labels).observe(usage.forwards)

    def cost(self, model: str, arm: str, usage: Usage, first_s: float) -> None:
        """What a request has cost, whether it came to its end or not, and when its first increment came."""
        labels = model, _strategy(usage), arm
        for name in COSTS:
            self._counters[name].labels(*labels).inc(getattr(usage, name))
        self._histograms["first_increment_seconds"].labels(*labels).observe(first_s)

    def failed(self, model: str, arm: str, error: BaseException) -> None:
        """The request ended otherwise."""
        name = type(error).__name__.removesuffix("Error") if isinstance(error, Exception) else "Cancelled"
        self._counters["generation_errors"].labels(model, arm, name).inc()

    def samples(self, shadows: ShadowStats, ledger: LedgerStats | None) -> list[Sample]:
        """Everything, with this replica's label; ``shadows`` and ``ledger`` keep their own counts."""
        measured = [
            Sample(family.name.removeprefix(PREFIX), sample.value, sample.labels, sample.name.removeprefix(family.name))
            for family in self._registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]
        kept = _shadow_samples(shadows) + ([] if ledger is None else _ledger_samples(ledger))
        return [sample.labelled(replica=self.replica) for sample in (*measured, *kept)]

    def _counter(self, spec: MetricSpec) -> Counter:
        return Counter(spec.family, spec.help, _own_labels(spec), registry=self._registry)

    def _gauge(self, spec: MetricSpec) -> Gauge:
        return Gauge(spec.family, spec.help, _own_labels(spec), registry=self._registry)

    def _histogram(self, spec: MetricSpec) -> Histogram:
        return Histogram(spec.family, spec.help, _own_labels(spec), registry=self._registry, buckets=spec.buckets)


def _own_labels(spec: MetricSpec) -> Sequence[str]:
    return [label for label in spec.labels if label != "replica"]


def _strategy(usage: Usage) -> str:
    """The engine's own name for what it used, so the number of labels is bounded."""
    return usage.strategy.name if usage.strategy else UNFINISHED


def _shadow_samples(stats: ShadowStats) -> list[Sample]:
    states = {"started": stats.started, "finished": stats.finished, "dropped": stats.dropped}
    return [counter("shadow_runs", count, state=state) for state, count in states.items()]


def _ledger_samples(stats: LedgerStats) -> list[Sample]:
    results = {"written": stats.written, "dropped": stats.dropped, "refused": stats.refused}
    return [
        *(counter("ledger_records", count, result=result) for result, count in results.items()),
        counter("ledger_failures", stats.failed),
        gauge("ledger_pending_records", stats.pending),
        gauge("ledger_healthy", stats.healthy),
    ]
