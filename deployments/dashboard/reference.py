"""The page about all metrics, in Markdown."""

from __future__ import annotations

from deployments.metrics.catalogue import METRICS
from deployments.metrics.spec import MetricSpec

INTRODUCTION = """# Metrics

`GET /metrics` has these metrics of the whole application, whichever ingress replica answers, in Prometheus' text format
or in OpenMetrics. Each process tells its own numbers under its own `replica` (of the ingress, or of an engine), the
router those of each model. Scrape one address of an application, and only one.

`arm` is EXPERIMENT/ARM, empty outside experiments; `strategy` is `unfinished` for requests that ended before an engine
said what it had used. A histogram `x` has the series `x_bucket`, `x_sum` and `x_count`. No label holds a client's text.
"""
SOURCES = {
    "ingress": "counted by each ingress replica, from the clients' side",
    "router": "of the router, which there is once",
    "engine": "counted by each engine replica",
    "scrape": "about the scrape itself",
}


def page() -> str:
    """A table for each source, in the catalogue's order."""
    parts = [INTRODUCTION]
    for source, title in SOURCES.items():
        parts.append(f"\n## {source.capitalize()}: {title}\n\n| metric | type | unit | labels | what it says |\n")
        parts.append("| --- | --- | --- | --- | --- |\n")
        parts += [_line(spec) for spec in METRICS.values() if spec.source == source]
    return "".join(parts)


def _line(spec: MetricSpec) -> str:
    return f"| `{spec.series}` | {spec.kind} | {spec.unit} | {', '.join(spec.labels)} | {spec.help} |\n"
