"""PromQL over the metrics of the catalogue: a name or label that does not exist fails here, not in Grafana."""

from __future__ import annotations

from deployments.metrics.catalogue import METRICS
from deployments.metrics.spec import Kind, MetricSpec

VARIABLES = ("model", "strategy", "arm", "replica")
"""What the dashboard filters by. ``replica`` chooses engine replicas; those of the ingress are always summed."""
WINDOW = "$__rate_interval"


def rate(name: str, *by: str, **only: str) -> str:
    """Per second, of a counter."""
    spec = _spec(name, "counter")
    return f"{_sum(spec, by)} (rate({spec.series}{selector(spec, **only)}[{WINDOW}]))"


def level(name: str, *by: str, **only: str) -> str:
    """The sum of a gauge."""
    spec = _spec(name, "gauge")
    return f"{_sum(spec, by)} ({spec.series}{selector(spec, **only)})"


def quantile(share: float, name: str, *by: str) -> str:
    """Of a histogram, over all its series that agree in ``by``."""
    spec = _spec(name, "histogram")
    buckets = f"rate({spec.family}_bucket{selector(spec)}[{WINDOW}])"
    return f"histogram_quantile({share:g}, {_sum(spec, by, 'le')} ({buckets}))"


def mean(name: str, *by: str) -> str:
    """Of a histogram's values."""
    spec = _spec(name, "histogram")
    total, count = (
        f"{_sum(spec, by)} (rate({spec.family}_{part}{selector(spec)}[{WINDOW}]))" for part in ("sum", "count")
    )
    return f"{total} / {count}"


def selector(spec: MetricSpec, **only: str) -> str:
    """``{...}``: the dashboard's variables that the metric has as labels, and fixed values."""
    assert set(only) <= set(spec.labels), f"{spec.name} has no label {sorted(set(only) - set(spec.labels))}"
    fixed = [f'{label}="{value}"' for label, value in only.items()]
    chosen = [
        f'{label}=~"${label}"'
        for label in VARIABLES
        if label in spec.labels and label not in only and (label != "replica" or spec.source == "engine")
    ]
    return "{" + ", ".join((*chosen, *fixed)) + "}" if chosen or fixed else ""


def _spec(name: str, kind: Kind) -> MetricSpec:
    spec = METRICS[name]
    assert spec.kind == kind, f"{name} is a {spec.kind}"
    return spec


def _sum(spec: MetricSpec, by: tuple[str, ...], *more: str) -> str:
    assert set(by) <= set(spec.labels), f"{spec.name} has no label {sorted(set(by) - set(spec.labels))}"
    labels = ", ".join((*by, *more))
    return f"sum by ({labels})" if labels else "sum"
