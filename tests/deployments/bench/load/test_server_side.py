"""deployments/bench/load/server_side.py and processes.py: roles, differences of CPU times and of metrics."""

from __future__ import annotations

import pytest

from deployments.bench.load.server_side import Reading, Target, cost, parse_sums, read_metrics
from deployments.bench.processes import CpuReading, role_of

PAGE = """
# TYPE lacuna_queue_wait_seconds histogram
lacuna_queue_wait_seconds_bucket{model="a",le="+Inf"} 2
lacuna_queue_wait_seconds_sum{model="a"} 0.5
lacuna_queue_wait_seconds_count{model="a"} 2
lacuna_queue_wait_seconds_sum{model="b"} 0.25
lacuna_queue_wait_seconds_count{model="b"} 1
# TYPE lacuna_engine_step_seconds histogram
lacuna_engine_step_seconds_sum{replica="x",phase="forward"} 3
lacuna_engine_step_seconds_sum{replica="y",phase="forward"} 1
lacuna_engine_step_seconds_sum{replica="x",phase="host"} 0.5
"""


@pytest.mark.parametrize(
    ("title", "role"),
    [
        ("ray::ServeReplica:lacuna:Ingress.handle_request", "ingress"),
        ("ray::ServeReplica:lacuna:Router", "router"),
        ("ray::ServeReplica:lacuna:EngineReplica-lacuna-tiny-sdar", "replica"),
        ("ray::RankWorker.follow", "ranks"),
        ("ray::ProxyActor", "proxy"),
        ("ray::ServeController.listen_for_change", "ray"),
        ("/usr/lib/raylet --port 1", "ray"),
        ("", "ray"),
    ],
)
def test_roles_are_read_from_titles(title: str, role: str) -> None:
    assert role_of(title) == role


def test_cpu_time_is_a_difference_by_role() -> None:
    before = CpuReading({1: ("replica", 5.0), 2: ("proxy", 1.0), 3: ("replica", 9.0)})
    after = CpuReading({1: ("replica", 7.0), 2: ("proxy", 1.5), 4: ("replica", 0.25)})
    assert before.until(after) == {"replica": 2.25, "proxy": 0.5}


def test_sums_are_over_labels_but_phases() -> None:
    assert parse_sums(PAGE) == {
        "queue_wait_seconds_sum": 0.75,
        "queue_wait_seconds_count": 3.0,
        "engine_step_seconds_sum/forward": 4.0,
        "engine_step_seconds_sum/host": 0.5,
    }


def test_costs_are_per_answer() -> None:
    before = Reading(CpuReading({1: ("replica", 1.0), 2: ("ingress", 1.0)}), 2.0, 10.0)
    after = Reading(CpuReading({1: ("replica", 1.4), 2: ("ingress", 1.2)}), 2.1, 14.0)
    found = cost(before, after, {}, parse_sums(PAGE), answers=4, idle_cores=0.05)
    assert found.cpu_ms == pytest.approx({"replica": 100.0, "ingress": 50.0})
    assert found.total_cpu_ms == pytest.approx(150)
    assert found.above_idle_ms == pytest.approx(100), "4 s at 0.05 cores are 50 ms of each of four answers"
    assert found.generator_cpu_ms == pytest.approx(25)
    assert found.router_wait_ms == pytest.approx(250)
    assert found.engine_wait_ms is None
    assert found.phase_ms == pytest.approx({"forward": 4000 / 3, "host": 500 / 3})
    assert found.to_dict()["total_cpu_ms"] == pytest.approx(150)


def test_of_a_service_elsewhere_nothing_is_known() -> None:
    target = Target("http://127.0.0.1:9", "")
    assert read_metrics(target) == {}
    first, second = Reading.of(target), Reading.of(target)
    found = cost(first, second, {}, {}, answers=3, idle_cores=first.cores_until(second))
    assert (found.total_cpu_ms, found.above_idle_ms, found.router_wait_ms, found.phase_ms) == (None,) * 4
