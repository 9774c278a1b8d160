"""deployments/bench/load/generator.py: who asks when, and what is counted."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

import numpy as np
import pytest

from deployments.bench.load import generator
from deployments.bench.load.generator import LEAD_S, Limit, closed_loop, in_background, open_loop
from deployments.bench.load.record import Record
from deployments.bench.load.requests import LoadRequest


class FakeClient:
    """Answers after a while; notes how many requests are in flight."""

    def __init__(self, delay_s: float = 0.002, error: str = "", lock: asyncio.Lock | None = None) -> None:
        self.delay_s = delay_s
        self.error = error
        self.lock = lock
        self.in_flight = self.most = self.asked = 0

    async def ask(self, record: Record) -> None:
        record.sent_s = time.perf_counter()
        self.asked += 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        if self.lock is None:
            await asyncio.sleep(self.delay_s)
        else:
            async with self.lock:
                await asyncio.sleep(self.delay_s)
        self.in_flight -= 1
        record.ended_s = time.perf_counter()
        record.completion_tokens, record.error = 4, self.error


def requests() -> Iterator[LoadRequest]:
    return (LoadRequest(prompt=str(number), max_tokens=4) for number in itertools.count())


async def test_a_closed_loop_counts_the_steady_state_only() -> None:
    client, marks = FakeClient(), []
    window = await closed_loop(
        client,
        requests(),
        clients=4,
        limit=Limit(requests=10),
        warmup=6,
        mark=lambda: marks.append(time.perf_counter()),
    )
    assert len(window.records) == 10
    assert client.most == 4
    assert 16 <= client.asked <= 20, "what is in flight at the end is not counted"
    assert marks[0] <= window.start_s <= window.end_s <= marks[1]
    assert all(window.start_s <= one.ended_s <= window.end_s for one in window.records)
    assert len({one.request.prompt for one in window.records}) == 10


async def test_a_closed_loop_ends_after_its_time() -> None:
    window = await closed_loop(FakeClient(0.01), requests(), 1, Limit(requests=10_000, seconds=0.05))
    assert 2 <= len(window.records) <= 6


@pytest.mark.parametrize(
    ("limit", "requests", "seconds", "reached"),
    [
        (Limit(5, None), 5, 0.0, True),
        (Limit(5, None), 4, 99.0, False),
        (Limit(None, 2.0), 9, 1.9, False),
        (Limit(None, 2.0), 2, 9.0, False),
        (Limit(None, 2.0), 3, 2.0, True),
        (Limit(), 999, 999.0, False),
    ],
)
def test_time_ends_a_loop_when_every_client_can_have_an_answer(
    limit: Limit, requests: int, seconds: float, reached: bool
) -> None:
    assert limit.reached(requests, seconds, clients=3) is reached


async def test_refused_clients_do_not_ask_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "REFUSED_PAUSE_S", 0.02)
    client = FakeClient(0.0, error="429 overloaded")
    window = await closed_loop(client, requests(), 1, Limit(seconds=0.1))
    assert 2 <= len(window.records) <= 6


async def test_an_open_loop_starts_on_schedule_and_counts_from_it() -> None:
    """A server that answers one at a time, slower than asked: waiting shows in the latencies, not in the starts."""
    client, marks = FakeClient(0.03, lock=asyncio.Lock()), []
    offsets = np.arange(5) * 0.005
    window = await open_loop(client, requests(), offsets, lambda: marks.append(time.perf_counter()))
    starts = [one.scheduled_s - window.start_s for one in window.records]
    assert starts == pytest.approx(offsets.tolist())
    assert client.most >= 4
    assert window.records[-1].total_s >= 5 * 0.03 - 0.02
    assert window.end_s == max(one.ended_s for one in window.records)
    assert marks[0] + LEAD_S <= window.start_s
    assert marks[1] >= window.end_s


async def test_a_late_start_is_told_and_part_of_the_latency() -> None:
    class Blocking(FakeClient):
        async def ask(self, record: Record) -> None:
            time.sleep(0.05)  # noqa: ASYNC251 - a generator that lacks CPU
            await super().ask(record)

    window = await open_loop(Blocking(), requests(), np.zeros(3))
    assert [one.late_s > 0.04 for one in window.records] == [True] * 3
    assert all(one.total_s >= one.late_s for one in window.records)


async def test_background_clients_stop_with_what_they_disturb() -> None:
    client = FakeClient(0.005)
    async with in_background(client, requests(), 2) as records:
        await asyncio.sleep(0.05)
        assert client.most == 2
    asked = client.asked
    assert 2 <= len(records) <= asked
    await asyncio.sleep(0.02)
    assert client.asked == asked
