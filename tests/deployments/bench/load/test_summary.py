"""deployments/bench/load: percentiles, rates, errors, goodput, sweeps, ratios, tables and plots of made-up records."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from rich.console import Console

from deployments.bench.load.command import finite
from deployments.bench.load.comparison import ComparedPoint, comparison_table
from deployments.bench.load.generator import Window
from deployments.bench.load.measure import Measurement, Point
from deployments.bench.load.plot import plot
from deployments.bench.load.record import Record
from deployments.bench.load.requests import LoadRequest
from deployments.bench.load.scenarios import cpu_us_per_token
from deployments.bench.load.server_side import ServerCost
from deployments.bench.load.summary import Percentiles, by_group, summarise
from deployments.bench.load.sweep import holds, sweep
from deployments.bench.load.tables import cost_table, latency_table, warnings

REQUEST = LoadRequest(prompt="a", max_tokens=8)


def record(total_s: float, *, error: str = "", late_s: float = 0.0, priority: int = 0) -> Record:
    request = LoadRequest(prompt="a", max_tokens=8, priority=priority)
    blocks = [] if error else [10.0 + total_s / 2, 10.0 + total_s]
    return Record(request, 10.0, 10.0 + late_s, blocks, 10.0 + total_s, 0 if error else 8, 1, 0 if error else 4, error)


def measurement(rate: float, *total_s: float, errors: int = 0, cpu_ms: float = 6.0) -> Measurement:
    records = [*map(record, total_s), *(record(0.01, error="429 overloaded") for _ in range(errors))]
    seconds = len(records) / rate
    cost = ServerCost(cpu_ms={"replica": cpu_ms, "ingress": 2.0}, generator_cpu_ms=1.0, idle_cores=0.1)
    return Measurement(Point("http", rate=rate), summarise(Window(records, 0.0, seconds), 500.0), cost)


def test_latencies_rates_and_goodput_by_hand() -> None:
    records = [record(0.1), record(0.2), record(0.4), record(9.0, error="429 overloaded"), record(0.3, late_s=0.05)]
    seen = summarise(Window(records, 5.0, 7.0), slo_ms=250)
    assert (seen.requests, seen.answers, seen.seconds) == (5, 4, 2.0)
    assert (seen.requests_per_s, seen.tokens_per_s) == (2.0, 16.0)
    assert seen.total.p50 == pytest.approx(250)
    assert seen.total.greatest == pytest.approx(400)
    assert seen.first.p50 == pytest.approx(125)
    assert seen.between.p50 == pytest.approx(125)
    assert seen.user_tokens_per_s == pytest.approx((8 / 0.2 + 8 / 0.3) / 2)
    assert seen.tokens_per_forward == 2.0
    assert seen.errors == {"429 overloaded": 1}
    assert seen.error_share == pytest.approx(0.2)
    assert seen.goodput is not None
    assert (seen.goodput.requests_per_s, seen.goodput.share) == (1.0, 0.4)
    assert seen.late_starts == 1
    assert seen.late_p99_ms == pytest.approx(50, rel=0.1)


def test_nothing_answered_is_no_number() -> None:
    seen = summarise(Window([record(1.0, error="503 engine_unavailable")], 0.0, 1.0), 100)
    assert math.isnan(seen.total.p95)
    assert (seen.tokens_per_s, seen.user_tokens_per_s, seen.tokens_per_forward) == (0.0, 0.0, 0.0)
    assert finite(seen.to_dict())["total"] == dict.fromkeys(["p50", "p90", "p95", "p99", "greatest"])  # type: ignore[index]


def test_priorities_are_told_apart() -> None:
    window = Window([record(0.1), record(0.3, priority=5), record(0.2)], 0.0, 1.0)
    groups = by_group(window)
    assert {name: group.answers for name, group in groups.items()} == {"{}": 2, "{} priority 5": 1}
    assert by_group(Window([record(0.1)], 0.0, 1.0)) == {}


def test_percentiles_of_a_hundred() -> None:
    one = Percentiles.of(number / 1000 for number in range(1, 102))
    assert (one.p50, one.p90, one.p95, one.p99, one.greatest) == pytest.approx((51, 91, 96, 100, 101))


def test_a_rate_holds_while_latency_and_errors_do() -> None:
    assert holds(measurement(10, 0.1, 0.2, 0.3), 500)
    assert not holds(measurement(10, 0.1, 0.2, 0.9), 500), "p95 is too long"
    assert not holds(measurement(10, 0.1, 0.2, 0.3, errors=1), 500), "a quarter failed"
    assert not holds(measurement(10, errors=3), 500), "nothing was answered"


async def test_a_sweep_finds_the_rate_between() -> None:
    asked: list[float] = []

    async def measure(rate: float) -> Measurement:
        asked.append(rate)
        return measurement(rate, *[0.1 if rate <= 5 else 0.9] * 20)

    found = await sweep(1.0, 500, measure)
    assert asked[:4] == [1, 2, 4, 8]
    assert len(asked) == 7
    assert found.sustained is not None
    assert 4 <= found.sustained <= 5
    assert [one.point.rate for one in found.measurements] == sorted(asked)
    assert (await sweep(8.0, 500, measure)).sustained is None


def test_ratios_to_a_baseline_are_per_round() -> None:
    rounds = [
        (measurement(1, 0.2, cpu_ms=8), measurement(1, 0.1, cpu_ms=3)),
        (measurement(1, 0.2), measurement(1, 0.2)),
    ]
    one = ComparedPoint.of(Point("http", clients=4), rounds)
    assert one.ratios["p50 whole"].to_dict() == pytest.approx({"median": 0.75, "least": 0.5, "greatest": 1.0})
    assert one.ratios["CPU/answer"].least == 0.5
    assert one.ratios["CPU/answer ingress"].median == 1.0
    console = Console(record=True, width=120)
    console.print(comparison_table([one], "main", 2))
    assert "http, 4 clients" in console.export_text()
    assert one.to_dict()["clients"] == 4


def test_tables_tell_errors_late_starts_and_unknown_numbers() -> None:
    one = measurement(10, 0.1, 0.2, errors=2)
    late = Measurement(one.point, summarise(Window([record(0.1, late_s=0.05)], 0.0, 1.0)), one.server)
    console = Console(record=True, width=200)
    console.print(latency_table([one], "model"), cost_table([one, late], "model"))
    text = console.export_text()
    assert "2/4" in text
    assert "http, 10/s" in text
    assert "replica" in text
    assert warnings([one, late]) == [
        "http, 10/s: 2 of 4 failed: 2 x 429 overloaded",
        "http, 10/s: the generator sent 1 of 1 requests late (p99 50 ms): it lacks CPU; latencies count from the "
        "schedule, so they hold this too",
    ]


def test_cpu_per_token_is_that_of_all_answers() -> None:
    one = measurement(10, 0.1, 0.2)
    assert cpu_us_per_token(one) == pytest.approx(1000)
    assert cpu_us_per_token(one, "ingress") == pytest.approx(250)
    assert cpu_us_per_token(one, "router") == 0.0


def test_a_plot_names_protocols_and_objective(tmp_path: Path) -> None:
    path = tmp_path / "load.svg"
    plot([measurement(1, 0.1, 0.2), measurement(2, 0.3, 0.9)], 500.0, path)
    text = path.read_text()
    assert "http p95" in text
    assert "objective" in text
