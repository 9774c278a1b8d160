"""Two services under the same load in turns, as ratios."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from deployments.bench.load.measure import Measurement, Point
from deployments.bench.load.server_side import Target
from engine.bench.revisions import Ratios

Measure = Callable[[Target, Point], Awaitable[Measurement]]


def readings(measurement: Measurement) -> dict[str, float]:
    """The numbers that two services are compared by; only those that are known."""
    seen, server = measurement.clients_saw, measurement.server
    found = {
        "p50 whole": seen.total.p50,
        "p95 whole": seen.total.p95,
        "p50 first": seen.first.p50,
        "tokens/s": seen.tokens_per_s,
        "CPU/answer": server.total_cpu_ms,
        **{f"CPU/answer {role}": spent for role, spent in server.cpu_ms.items()},
    }
    return {name: value for name, value in found.items() if value is not None and value > 0}


@dataclass(frozen=True, slots=True)
class ComparedPoint:
    """Of one point of load: this service's numbers over those of the baseline, one ratio per round."""

    point: Point
    ratios: Mapping[str, Ratios]

    @classmethod
    def of(cls, point: Point, rounds: Sequence[tuple[Measurement, Measurement]]) -> ComparedPoint:
        """``rounds`` are (baseline, this)."""
        pairs = [(readings(old), readings(new)) for old, new in rounds]
        names = [name for name in pairs[0][1] if all(name in old and name in new for old, new in pairs)]
        return cls(point, {name: Ratios.of([new[name] / old[name] for old, new in pairs]) for name in names})

    def to_dict(self) -> dict[str, object]:
        return {
            "protocol": self.point.protocol,
            "clients": self.point.clients,
            "rate": self.point.rate,
            "ratios": {name: ratios.to_dict() for name, ratios in self.ratios.items()},
        }


async def compare(
    baseline: Target, this: Target, points: Sequence[Point], rounds: int, measure: Measure
) -> list[ComparedPoint]:
    """Every point in every round on both; who begins changes from round to round."""
    found = []
    for point in points:
        pairs = []
        for number in range(rounds):
            if number % 2:
                new = await measure(this, point)
                pairs.append((await measure(baseline, point), new))
            else:
                old = await measure(baseline, point)
                pairs.append((old, await measure(this, point)))
        found.append(ComparedPoint.of(point, pairs))
    return found


def comparison_table(points: Sequence[ComparedPoint], revision: str, rounds: int) -> Table:
    """Median, least and greatest ratio of the rounds."""
    table = Table(title=f"this tree over {revision}, {rounds} rounds", title_justify="left")
    for head in ("load", "of", "median", "least", "greatest"):
        table.add_column(head, justify="left" if head in ("load", "of") else "right")
    for one in points:
        for name, ratios in one.ratios.items():
            table.add_row(one.point.label, name, *(f"{value:.3f}" for value in ratios.to_dict().values()))
    return table
