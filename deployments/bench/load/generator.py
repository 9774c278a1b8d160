"""Closed and open loops of requests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deployments.bench.load.arrivals import Offsets
from deployments.bench.load.clients import LoadClient
from deployments.bench.load.record import Record
from deployments.bench.load.requests import LoadRequest

LEAD_S = 0.05
"""From the decision to begin to the first request of a schedule."""

REFUSED_PAUSE_S = 0.1
"""Before a client of a closed loop asks again after an error."""


@dataclass(frozen=True, slots=True)
class Window:
    """Requests that count, of the time ``[start_s, end_s]``."""

    records: Sequence[Record]
    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Limit:
    """When a closed loop has seen enough: so many answers, or so many seconds and an answer for each client, whichever
    comes first (None: never)."""

    requests: int | None = None
    seconds: float | None = None

    def reached(self, requests: int, seconds: float, clients: int) -> bool:
        if self.requests is not None and requests >= self.requests:
            return True
        return self.seconds is not None and seconds >= self.seconds and requests >= clients


async def closed_loop(
    client: LoadClient,
    requests: Iterator[LoadRequest],
    clients: int,
    limit: Limit,
    warmup: int = 0,
    mark: Callable[[], None] = lambda: None,
) -> Window:
    """``clients`` that ask one request after the other.

    What is counted is the steady state: answers between the ``warmup``-th one and the last, which ends the window while
    the others are still in flight; those end uncounted. ``mark`` is called when the window begins and when it ends.
    """
    counted: list[Record] = []
    warm_left, start_s, end_s = warmup, 0.0, 0.0
    if not warmup:
        mark()
        start_s = time.perf_counter()

    async def one_client() -> None:
        nonlocal warm_left, start_s, end_s
        while not end_s:
            record = Record(next(requests), time.perf_counter())
            await _ask(client, record)
            if end_s:
                return
            if warm_left:
                warm_left -= 1
                if not warm_left:
                    mark()
                    start_s = time.perf_counter()
                continue
            counted.append(record)
            if limit.reached(len(counted), record.ended_s - start_s, clients):
                end_s = record.ended_s
                mark()

    await asyncio.gather(*(one_client() for _ in range(clients)))
    return Window(counted, start_s, end_s)


async def open_loop(
    client: LoadClient,
    requests: Iterator[LoadRequest],
    offsets: Offsets,
    mark: Callable[[], None] = lambda: None,
) -> Window:
    """A request at each of ``offsets`` (seconds from the start), whatever has become of those before. The window ends
    with the last answer; ``mark`` is called when it begins and when it ends."""
    prepared = list(itertools.islice(requests, len(offsets)))  # drawing prompts must not delay a start
    mark()
    start_s = time.perf_counter() + LEAD_S
    records = [Record(one, start_s + offset) for one, offset in zip(prepared, offsets.tolist(), strict=True)]
    tasks = []
    for record in records:
        if (wait_s := record.scheduled_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.create_task(client.ask(record)))
    await asyncio.gather(*tasks)
    mark()
    return Window(records, start_s, max(record.ended_s for record in records))


@asynccontextmanager
async def in_background(
    client: LoadClient, requests: Iterator[LoadRequest], clients: int
) -> AsyncIterator[list[Record]]:
    """Clients that ask beside another measurement until that ends, which cuts off what they are asking then."""
    records: list[Record] = []

    async def one_client() -> None:
        while True:
            record = Record(next(requests), time.perf_counter())
            await _ask(client, record)
            records.append(record)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one_client()) for _ in range(clients)]
        yield records
        for task in tasks:
            task.cancel()


async def _ask(client: LoadClient, record: Record) -> None:
    """A client that was refused comes again a little later, or all of them would do nothing else."""
    await client.ask(record)
    if record.error:
        await asyncio.sleep(REFUSED_PAUSE_S)
