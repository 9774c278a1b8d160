"""The load generator against a real service: both transports, both loops, and what the server spent."""

from __future__ import annotations

import os

import pytest

from deployments.bench.load.generator import Limit
from deployments.bench.load.measure import LoadOptions, Point, measure
from deployments.bench.load.requests import Lengths, LoadRequest, RequestMix
from deployments.bench.load.server_side import Target
from tests.integration.conftest import QUEUE_DEPTH, SLOTS, Service

MODEL = "lacuna-tiny-sdar"
OPTIONS = LoadOptions(
    mix=RequestMix(
        prompts=Lengths(8, 24),
        max_tokens=Lengths(8, 16),
        base=LoadRequest(prompt="", max_tokens=0, model=MODEL),
        priorities=(0, 1),
    ),
    limit=Limit(requests=6),
    duration_s=1.0,
    warmup=2,
    slo_ms=60_000.0,
)


@pytest.mark.parametrize(
    "point", [Point("http", clients=3), Point("grpc", clients=3), Point("http", rate=6.0)], ids=str
)
async def test_a_load_is_answered_and_accounted_for(service: Service, point: Point) -> None:
    target = Target(service.base_url, service.grpc_address, os.getpid())
    found = await measure(target, point, OPTIONS, idle=0.0)
    seen = found.clients_saw
    assert seen.errors == {}
    assert seen.answers == seen.requests >= 1
    assert seen.goodput is not None
    assert seen.goodput.share == 1.0
    assert 0 < seen.first.p50 <= seen.total.p50
    assert seen.between.p50 > 0, "answers of several blocks"
    assert 1 <= seen.tokens_per_forward <= 8
    assert {"proxy", "ingress", "router", "replica"} <= found.server.cpu_ms.keys()
    assert found.server.cpu_ms["replica"] > 0
    assert found.server.router_wait_ms is not None
    assert found.server.phase_ms is not None
    assert found.server.phase_ms["forward"] > 0
    assert sum(group.answers for group in found.groups.values()) in (0, seen.answers)


async def test_refusals_are_counted_not_hidden(service: Service) -> None:
    """A burst of more requests than have slots or places in the queue."""
    target = Target(service.base_url, service.grpc_address)
    burst = SLOTS + 2 * QUEUE_DEPTH
    mix = OPTIONS.mix.of(timeout_s=60.0)
    options = LoadOptions(mix=mix, duration_s=0.25, warmup=0, arrivals="constant")
    found = await measure(target, Point("grpc", rate=burst / 0.25), options)
    seen = found.clients_saw
    refused = sum(count for kind, count in seen.errors.items() if kind == "RESOURCE_EXHAUSTED")
    assert seen.requests == burst
    assert seen.answers + refused == burst
    assert refused > 0
    assert not found.server.cpu_ms
