"""The greatest rate that a service sustains: an open loop made faster until its latency objective breaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from deployments.bench.load.measure import Measurement

GROWTH = 2.0
REFINEMENTS = 3
MAX_ERROR_SHARE = 0.01
MAX_STEPS = 16


@dataclass(frozen=True, slots=True)
class Sweep:
    """All measurements in the order of their rates, and the greatest rate that held (None: not even the first)."""

    measurements: list[Measurement]
    sustained: float | None


def holds(measurement: Measurement, slo_ms: float) -> bool:
    """Whether p95 of the whole latency keeps the objective and nearly nothing fails. A queue that grows shows in p95,
    because latencies count from the schedule."""
    seen = measurement.clients_saw
    return seen.total.p95 <= slo_ms and seen.error_share <= MAX_ERROR_SHARE


async def sweep(first_rate: float, slo_ms: float, measure: Callable[[float], Awaitable[Measurement]]) -> Sweep:
    """Doubles the rate until the objective breaks, then halves the distance (as a ratio) a few times."""
    found: dict[float, Measurement] = {}

    async def holds_at(rate: float) -> bool:
        found[rate] = await measure(rate)
        return holds(found[rate], slo_ms)

    held, broken, rate = None, None, first_rate
    for _ in range(MAX_STEPS):
        if not await holds_at(rate):
            broken = rate
            break
        held, rate = rate, rate * GROWTH
    if held is not None and broken is not None:
        for _ in range(REFINEMENTS):
            middle = (held * broken) ** 0.5
            if await holds_at(middle):
                held = middle
            else:
                broken = middle
    return Sweep([found[rate] for rate in sorted(found)], held)
