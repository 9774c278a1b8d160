"""What the service adds to the engine: CPU time and latency of 64-token answers, as ratios in one run.

The same requests run in the bare engine (this process) and through the service over HTTP (processes of its own), with
Serve's defaults and with ``RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_THROUGHPUT_OPTIMIZED=1``. Engine and service take
turns, so that what else the machine does meets them alike.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from deployments.bench.processes import cpu_s, descendants
from deployments.bench.service import Service, started_service
from deployments.config import resolve_checkpoint
from engine.async_engine import AsyncEngine
from engine.config import EngineConfig
from engine.llm_engine import LLMEngine
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest

TOKENS = 64
TURNS = 3
PROMPT = "What is 17 + 25?"
MODES: dict[str, dict[str, str]] = {
    "default": {},
    "haproxy+throughput": {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
    },
}

Ask = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one answer: CPU milliseconds of all processes that serve it, and the client's latency, median and 95 %."""

    cpu_ms: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class OverheadRow:
    """One way to serve with so many clients at once, and what it costs on top of the bare engine."""

    mode: str
    clients: int
    cost: Cost
    engine: Cost

    def to_dict(self) -> dict[str, object]:
        return {
            "mode": self.mode,
            "clients": self.clients,
            "engine_cpu_ms": round(self.engine.cpu_ms, 2),
            "engine_p50_ms": round(self.engine.p50_ms, 2),
            "cpu_ms": round(self.cost.cpu_ms, 2),
            "p50_ms": round(self.cost.p50_ms, 2),
            "p95_ms": round(self.cost.p95_ms, 2),
            "cpu_ratio": round(self.cost.cpu_ms / self.engine.cpu_ms, 3),
            "latency_ratio": round(self.cost.p50_ms / self.engine.p50_ms, 3),
            "added_cpu_ms": round(self.cost.cpu_ms - self.engine.cpu_ms, 2),
            "added_p50_ms": round(self.cost.p50_ms - self.engine.p50_ms, 2),
        }


@dataclass(slots=True)
class Tally:
    """What has been measured of one way to serve."""

    latencies_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def cost(self) -> Cost:
        """Per answer."""
        p50, p95 = np.percentile(self.latencies_s, [50, 95])
        return Cost(1000 * self.cpu_s / len(self.latencies_s), 1000 * float(p50), 1000 * float(p95))


def measure_overhead(
    model: str, num_requests: int, clients: list[int], report: Callable[[str], None]
) -> list[OverheadRow]:
    """All modes with each number of clients, each beside the bare engine."""
    engine = AsyncEngine(LLMEngine.from_pretrained(resolve_checkpoint(model), EngineConfig(num_threads=1)))
    engine.start()
    rows: list[OverheadRow] = []
    try:
        for mode, environment in MODES.items():
            report(mode)
            words = ["--model", model]
            with started_service(words, environment=environment) as service:
                rows += asyncio.run(_compare(engine, mode, model, service, num_requests, clients))
    finally:
        asyncio.run(engine.close())
    return rows


async def _compare(
    engine: AsyncEngine, mode: str, model: str, service: Service, num_requests: int, clients: list[int]
) -> list[OverheadRow]:
    rows = []
    limits = httpx.Limits(max_connections=256)
    async with httpx.AsyncClient(base_url=service.base_url, timeout=120, limits=limits) as client:
        asks = (_ask_engine(engine), _ask_service(client, model))
        for count in clients:
            bare, served = Tally(), Tally()
            for ask in asks:
                await measure_turn(ask, count, count, set(), Tally())
            for _ in range(TURNS):
                for ask, pids, tally in zip(
                    asks, ({os.getpid()}, descendants(service.pid)), (bare, served), strict=True
                ):
                    await measure_turn(ask, -(-num_requests // TURNS), count, pids, tally)
            rows.append(OverheadRow(mode, count, served.cost(), bare.cost()))
    return rows


def _ask_engine(engine: AsyncEngine) -> Ask:
    numbers = itertools.count()

    async def ask() -> None:
        sampling = SamplingParams(max_tokens=TOKENS, ignore_eos=True)
        request = GenerationRequest(request_id=str(next(numbers)), prompt=PROMPT, sampling=sampling, stream="final")
        async for _ in engine.generate(request):
            pass

    return ask


def _ask_service(client: httpx.AsyncClient, model: str) -> Ask:
    body: dict[str, Any] = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "ignore_eos": True}

    async def ask() -> None:
        (await client.post("/v1/completions", json=body)).raise_for_status()

    return ask


async def measure_turn(ask: Ask, num_requests: int, clients: int, pids: set[int], tally: Tally) -> None:
    """``clients`` that ask one after the other, together ``num_requests`` times; adds to ``tally``."""
    left = iter(range(num_requests))

    async def one_client() -> None:
        for _ in left:
            started = time.perf_counter()
            await ask()
            tally.latencies_s.append(time.perf_counter() - started)

    before = cpu_s(pids)
    await asyncio.gather(*(one_client() for _ in range(clients)))
    tally.cpu_s += cpu_s(pids) - before
