"""One point of load on one service: warm-up, requests, what clients saw and what the server spent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from deployments.bench.load.arrivals import schedule
from deployments.bench.load.clients import LoadClient, grpc_client, http_client
from deployments.bench.load.generator import Limit, Window, closed_loop, open_loop
from deployments.bench.load.requests import LoadRequest, RequestMix
from deployments.bench.load.server_side import Reading, ServerCost, Target, cost, read_metrics
from deployments.bench.load.summary import LoadSummary, by_group, summarise

PROTOCOLS = ("http", "grpc")
IDLE_S = 2.0
WARMUP = 8
WARMUP_CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Point:
    """``clients`` of a closed loop, or requests per second of an open one."""

    protocol: str
    clients: int | None = None
    rate: float | None = None

    @property
    def label(self) -> str:
        amount = f"{self.clients} clients" if self.rate is None else f"{self.rate:g}/s"
        return f"{self.protocol}, {amount}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """``limit`` of a closed loop; an open one lasts ``duration_s``. ``warmup`` answers come before the clock starts
    (None: as many as there are clients, WARMUP of an open loop). ``seed`` decides requests and arrivals."""

    mix: RequestMix
    limit: Limit = field(default_factory=Limit)
    duration_s: float = 20.0
    arrivals: str = "poisson"
    warmup: int | None = None
    slo_ms: float | None = None
    seed: int = 0

    def requests(self) -> Iterator[LoadRequest]:
        """Without an end; the same for the same seed."""
        return (self.mix.make(index, self.seed) for index in itertools.count())


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a point of load showed; ``groups`` are requests of one strategy and priority, if there are several."""

    point: Point
    clients_saw: LoadSummary
    server: ServerCost
    groups: Mapping[str, LoadSummary] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        return {
            "protocol": self.point.protocol,
            "clients": self.point.clients,
            "rate": self.point.rate,
            **self.clients_saw.to_dict(),
            "server": self.server.to_dict(),
            "groups": {name: group.to_dict() for name, group in self.groups.items()},
        }


@asynccontextmanager
async def connected(target: Target, protocol: str) -> AsyncIterator[LoadClient]:
    """A client of the service."""
    if protocol == "http":
        async with http_client(target.base_url, target.api_key) as client:
            yield client
    else:
        async with grpc_client(target.grpc_address, target.api_key) as client:
            yield client


async def idle_cores(target: Target) -> float | None:
    """What the service takes while nobody asks; None where that cannot be known."""
    if target.pid is None:
        return None
    before = Reading.of(target)
    await asyncio.sleep(IDLE_S)
    return before.cores_until(Reading.of(target))


async def measure(target: Target, point: Point, options: LoadOptions, idle: float | None = None) -> Measurement:
    """A closed or an open loop on the service."""
    async with connected(target, point.protocol) as client:
        return await measure_with(client, target, point, options, idle)


async def measure_with(
    client: LoadClient, target: Target, point: Point, options: LoadOptions, idle: float | None = None
) -> Measurement:
    """As :func:`measure`, over a connection that is there."""
    marks: list[Reading] = []
    sums = await asyncio.to_thread(read_metrics, target)
    window = await _window(client, point, options, lambda: marks.append(Reading.of(target)))
    sums_after = await asyncio.to_thread(read_metrics, target)
    before, after = marks
    answers = sum(record.succeeded for record in window.records)
    return Measurement(
        point=point,
        clients_saw=summarise(window, options.slo_ms),
        server=cost(before, after, sums, sums_after, answers, idle),
        groups=by_group(window, options.slo_ms),
    )


async def _window(client: LoadClient, point: Point, options: LoadOptions, mark: Callable[[], None]) -> Window:
    requests = options.requests()
    if point.rate is None:
        assert point.clients is not None, "a point has clients or a rate"
        warmup = point.clients if options.warmup is None else options.warmup
        return await closed_loop(client, requests, point.clients, options.limit, warmup, mark)
    warmup = WARMUP if options.warmup is None else options.warmup
    if warmup:
        await closed_loop(client, requests, WARMUP_CLIENTS, Limit(requests=warmup))
    offsets = schedule(options.arrivals, point.rate, options.duration_s, options.seed)
    return await open_loop(client, requests, offsets, mark)
