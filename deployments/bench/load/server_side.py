"""What a service spends on a load: CPU time by role, and what its own metrics say of waiting and computing."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from prometheus_client.parser import text_string_to_metric_families

from deployments.bench.processes import CpuReading
from deployments.metrics.spec import PREFIX

METRICS_TIMEOUT_S = 10.0
Sums = Mapping[str, float]
"""Samples of counters and sums of histograms, added up over labels; a step's phase is part of the name."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running service. Without ``pid`` (it runs elsewhere) nothing is known of its CPU time."""

    base_url: str
    grpc_address: str
    pid: int | None = None
    api_key: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the CPU time of a service and of this process."""

    cpu: CpuReading | None
    own_cpu_s: float
    at_s: float

    @classmethod
    def of(cls, target: Target) -> Reading:
        cpu = None if target.pid is None else CpuReading.of(target.pid)
        return cls(cpu, time.process_time(), time.perf_counter())

    def cores_until(self, later: Reading) -> float | None:
        """Mean number of cores that the service kept busy between the two; None where that is unknown."""
        if self.cpu is None or later.cpu is None:
            return None
        return sum(self.cpu.until(later.cpu).values()) / (later.at_s - self.at_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCost:
    """Per answer: CPU milliseconds by role (empty: unknown), the generator's own, and from the metrics the mean time
    in the router's queue and in the engine's, and of all steps of the engine the time per phase. The metrics' times
    are None where the service does not tell them. ``idle_cores`` is what the same processes take without any load, and
    ``above_idle_ms`` the CPU time beyond that: what the answers themselves have cost."""

    cpu_ms: Mapping[str, float]
    generator_cpu_ms: float
    router_wait_ms: float | None = None
    engine_wait_ms: float | None = None
    phase_ms: Mapping[str, float] | None = None
    idle_cores: float | None = None
    above_idle_ms: float | None = None

    @property
    def total_cpu_ms(self) -> float | None:
        return sum(self.cpu_ms.values()) if self.cpu_ms else None

    def to_dict(self) -> dict[str, object]:
        return asdict(self) | {"total_cpu_ms": self.total_cpu_ms}


def cost(
    before: Reading, after: Reading, sums_before: Sums, sums_after: Sums, answers: int, idle_cores: float | None
) -> ServerCost:
    """Differences of two readings over the answers between them; of the metrics over all that were counted."""
    spent = {} if before.cpu is None or after.cpu is None else before.cpu.until(after.cpu)
    per = 1000 / max(answers, 1)
    busy, seconds = before.cores_until(after), after.at_s - before.at_s
    grown = {name: value - sums_before.get(name, 0.0) for name, value in sums_after.items()}
    served = grown.get("queue_wait_seconds_count", 0.0)
    phases = {name.rpartition("/")[2]: value for name, value in grown.items() if name.startswith(_STEP_SUM)}
    return ServerCost(
        cpu_ms={role: per * seconds for role, seconds in sorted(spent.items())},
        generator_cpu_ms=per * (after.own_cpu_s - before.own_cpu_s),
        router_wait_ms=_mean_ms(grown, "queue_wait_seconds"),
        engine_wait_ms=_mean_ms(grown, "engine_queue_wait_seconds"),
        phase_ms={name: 1000 * value / served for name, value in phases.items()} if served else None,
        idle_cores=idle_cores,
        above_idle_ms=None if busy is None or idle_cores is None else per * (busy - idle_cores) * seconds,
    )


_STEP_SUM = "engine_step_seconds_sum/"


def _mean_ms(grown: Sums, histogram: str) -> float | None:
    count = grown.get(f"{histogram}_count", 0.0)
    return 1000 * grown[f"{histogram}_sum"] / count if count else None


def read_metrics(target: Target) -> Sums:
    """The service's sums; nothing where it does not answer with metrics (they may need a key of their own)."""
    headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    request = urllib.request.Request(f"{target.base_url}/metrics", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=METRICS_TIMEOUT_S) as answer:
            return parse_sums(answer.read().decode())
    except (urllib.error.URLError, TimeoutError):
        return {}


def parse_sums(page: str) -> Sums:
    """Sums over all labels but a step's phase, named without the project's prefix."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = sample.name.removeprefix(PREFIX)
            if name.endswith(("_sum", "_count")):
                name += f"/{sample.labels['phase']}" if "phase" in sample.labels else ""
                sums[name] = sums.get(name, 0.0) + sample.value
    return sums
