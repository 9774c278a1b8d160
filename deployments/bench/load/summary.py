"""Percentiles, rates, errors and goodput of a window of requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from deployments.bench.load.generator import Window
from deployments.bench.load.record import Record

LATE_S = 0.01
"""A request that the generator sends later than this was not sent when it was due."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds; nan where there is nothing."""

    p50: float
    p90: float
    p95: float
    p99: float
    greatest: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Percentiles:
        values = 1000 * np.array(list(seconds))
        if not len(values):
            return cls(*[float("nan")] * 5)
        return cls(*(float(value) for value in np.percentile(values, [50, 90, 95, 99, 100])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Answers whose whole latency kept the objective; an error never does."""

    slo_ms: float
    requests_per_s: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary:
    """What clients saw. Latencies, tokens and rates are of answers without errors; ``user_tokens_per_s`` is the median
    speed of one answer. ``late_starts`` and ``late_p99_ms`` tell whether the generator itself kept its schedule."""

    requests: int
    answers: int
    seconds: float
    requests_per_s: float
    tokens_per_s: float
    user_tokens_per_s: float
    first: Percentiles
    between: Percentiles
    total: Percentiles
    completion_tokens: int
    forwards: int
    tokens_per_forward: float
    errors: Mapping[str, int]
    late_starts: int
    late_p99_ms: float
    goodput: Goodput | None = None

    @property
    def error_share(self) -> float:
        return 1 - self.answers / self.requests if self.requests else 0.0

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def summarise(window: Window, slo_ms: float | None = None) -> LoadSummary:
    """The whole window."""
    return _summarise(window.records, window.seconds, slo_ms)


def by_group(window: Window, slo_ms: float | None = None) -> dict[str, LoadSummary]:
    """Requests of each strategy and priority apart; nothing when all are of one kind."""
    groups: dict[str, list[Record]] = {}
    for record in window.records:
        groups.setdefault(record.request.group, []).append(record)
    if len(groups) < 2:
        return {}
    return {name: _summarise(records, window.seconds, slo_ms) for name, records in sorted(groups.items())}


def _summarise(records: Sequence[Record], seconds: float, slo_ms: float | None) -> LoadSummary:
    answers = [record for record in records if record.succeeded]
    tokens, forwards = (sum(getattr(one, name) for one in answers) for name in ("completion_tokens", "forwards"))
    speeds = [one.completion_tokens / one.total_s for one in answers]
    late = [record.late_s for record in records]
    return LoadSummary(
        requests=len(records),
        answers=len(answers),
        seconds=seconds,
        requests_per_s=len(answers) / seconds,
        tokens_per_s=tokens / seconds,
        user_tokens_per_s=float(np.median(speeds)) if speeds else 0.0,
        first=Percentiles.of(one.first_s for one in answers),
        between=Percentiles.of(gap for one in answers for gap in one.gaps_s()),
        total=Percentiles.of(one.total_s for one in answers),
        completion_tokens=tokens,
        forwards=forwards,
        tokens_per_forward=tokens / forwards if forwards else 0.0,
        errors=dict(Counter(record.error for record in records if record.error).most_common()),
        late_starts=sum(one > LATE_S for one in late),
        late_p99_ms=Percentiles.of(late).p99,
        goodput=None if slo_ms is None else _goodput(records, seconds, slo_ms),
    )


def _goodput(records: Sequence[Record], seconds: float, slo_ms: float) -> Goodput:
    kept = sum(record.succeeded and 1000 * record.total_s <= slo_ms for record in records)
    return Goodput(slo_ms=slo_ms, requests_per_s=kept / seconds, share=kept / len(records) if records else 0.0)
