"""Latency over throughput as an SVG file. Matplotlib's figure objects only: no pyplot, no global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from deployments.bench.load.measure import Measurement

SIZE_IN = (7.2, 4.0)
STYLES = {"p50": "o-", "p95": "s--", "p99": "^:"}


def plot(measurements: Sequence[Measurement], slo_ms: float | None, path: Path) -> None:
    """A line per protocol and percentile through the points in the order of their load."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "load"}):
        figure = Figure(figsize=SIZE_IN, layout="constrained")
        axes = figure.subplots()
        for place, protocol in enumerate(sorted({one.point.protocol for one in measurements})):
            points = [one for one in measurements if one.point.protocol == protocol and one.clients_saw.answers]
            speeds = [one.clients_saw.tokens_per_s for one in points]
            for name, style in STYLES.items():
                latencies = [getattr(one.clients_saw.total, name) for one in points]
                axes.plot(speeds, latencies, style, color=f"C{place}", label=f"{protocol} {name}")
        if slo_ms is not None:
            axes.axhline(slo_ms, color="0.4", linewidth=0.8)
            axes.annotate("objective", (0, slo_ms), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
        axes.set(xlabel="tokens/s", ylabel="latency of whole answers, ms", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
