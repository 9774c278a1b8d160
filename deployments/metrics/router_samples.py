"""The router's state of one model as samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.autoscaling import ModelLoad
from deployments.metrics.spec import Sample, counter, gauge


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterReport:
    """A model at the router: its load now, and counters since the router began. ``refused`` is by reason,
    ``wanted_replicas`` None without autoscaling."""

    load: ModelLoad
    wanted_replicas: int | None
    admitted: int
    refused: Mapping[str, int]
    lost_replicas: int
    expired_leases: int


def router_samples(report: RouterReport) -> list[Sample]:
    """All metrics of the model, without its label."""
    load = report.load
    samples = [
        gauge("router_queue_depth", load.queued),
        gauge("router_in_flight", load.in_flight),
        gauge("router_predicted_work_seconds", load.work_s),
        gauge("router_positions_per_second", load.positions_per_s),
        gauge("router_places", load.replicas * load.places_per_replica),
        gauge("router_replicas", load.replicas),
        counter("router_admitted", report.admitted),
        counter("router_lost_replicas", report.lost_replicas),
        counter("router_expired_leases", report.expired_leases),
        *(counter("router_refused", count, reason=reason) for reason, count in report.refused.items()),
    ]
    if report.wanted_replicas is not None:
        samples.append(gauge("router_wanted_replicas", report.wanted_replicas))
    return samples
