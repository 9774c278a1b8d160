"""Measurements as tables for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from deployments.bench.load.measure import Measurement
from deployments.bench.load.summary import LoadSummary, Percentiles

ROLES = ("proxy", "ingress", "router", "replica", "ranks", "ray")
UNKNOWN = "-"


def latency_table(measurements: Sequence[Measurement], title: str) -> Table:
    """What clients saw; with several strategies or priorities a row for each of them below."""
    heads = ("answers", "answers/s", "tokens/s", "of a user", "first ms", "between ms", "whole ms", "TPF", "good/s")
    table = _table(f"{title}: p50 / p95 / p99 of latencies", ("load", *heads))
    for one in measurements:
        table.add_row(one.point.label, *_seen(one.clients_saw), style="bold" if one.groups else None)
        for name, group in one.groups.items():
            table.add_row(f"  {name}", *_seen(group))
    return table


def cost_table(measurements: Sequence[Measurement], title: str) -> Table:
    """What an answer cost the server."""
    seen = {role for one in measurements for role in one.server.cpu_ms}
    roles = [role for role in ROLES if role in seen]
    heads = (
        "CPU ms",
        "above idle",
        *roles,
        "idle cores",
        "router queue ms",
        "engine queue ms",
        "forward ms",
        "decide ms",
        "host ms",
    )
    table = _table(f"{title}: per answer", ("load", *heads, "generator CPU ms"))
    for one in measurements:
        server = one.server
        phases: Mapping[str, float] = server.phase_ms or {}
        cells = (
            server.total_cpu_ms,
            server.above_idle_ms,
            *(server.cpu_ms.get(role) for role in roles),
            server.idle_cores,
            server.router_wait_ms,
            server.engine_wait_ms,
            *(phases.get(phase) for phase in ("forward", "decide", "host")),
            server.generator_cpu_ms,
        )
        table.add_row(one.point.label, *map(number, cells))
    return table


def warnings(measurements: Sequence[Measurement]) -> list[str]:
    """Errors by kind, and requests that were not sent when they were due."""
    told = []
    for one in measurements:
        seen = one.clients_saw
        if seen.errors:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in seen.errors.items())
            told.append(f"{one.point.label}: {seen.requests - seen.answers} of {seen.requests} failed: {kinds}")
        if seen.late_starts:
            told.append(
                f"{one.point.label}: the generator sent {seen.late_starts} of {seen.requests} requests late (p99 "
                f"{seen.late_p99_ms:.0f} ms): it lacks CPU; latencies count from the schedule, so they hold this too"
            )
    return told


def number(value: float | None) -> str:
    """Three figures; a dash for what is not known."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _seen(seen: LoadSummary) -> tuple[str, ...]:
    return (
        f"{seen.answers}/{seen.requests}",
        number(seen.requests_per_s),
        number(seen.tokens_per_s),
        number(seen.user_tokens_per_s),
        _latencies(seen.first),
        _latencies(seen.between),
        _latencies(seen.total),
        number(seen.tokens_per_forward),
        UNKNOWN if seen.goodput is None else f"{number(seen.goodput.requests_per_s)} ({seen.goodput.share:.0%})",
    )


def _latencies(one: Percentiles) -> str:
    return UNKNOWN if math.isnan(one.p50) else f"{number(one.p50)} / {number(one.p95)} / {number(one.p99)}"


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    return table
