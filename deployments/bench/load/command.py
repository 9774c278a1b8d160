"""``python -m deployments.bench serve``: starts a service or takes a running one, loads it, and tells what it saw."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from deployments.bench.load.comparison import compare, comparison_table
from deployments.bench.load.measure import Measurement, Point, idle_cores, measure
from deployments.bench.load.options import (
    DEFAULT_CLIENTS,
    DEFAULT_RATE,
    api_key,
    check,
    load_options,
    points_of,
    protocols_of,
    service_options,
)
from deployments.bench.load.plot import plot
from deployments.bench.load.scenarios import (
    LONG_TOKENS,
    long_prompt_scenario,
    long_prompt_table,
    queue_scenario,
    queue_table,
)
from deployments.bench.load.server_side import Target
from deployments.bench.load.sweep import sweep
from deployments.bench.load.tables import cost_table, latency_table, warnings
from deployments.bench.load.targets import started, started_with_positions, started_with_queue
from engine.bench.revisions import checked_out, this_tree
from engine.errors import LacunaError

EXIT_OK, EXIT_UNSERVED, EXIT_USAGE = 0, 1, 2
Document = dict[str, object]


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Measure, print, write; the exit code. It is EXIT_UNSERVED where not one request was answered."""
    try:
        check(arguments)
        document, answers = asyncio.run(_Session(arguments, console).run())
    except LacunaError as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        return EXIT_USAGE
    if arguments.output is not None:
        machine: Document = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
        text = json.dumps(finite({"machine": machine, **document}), indent=1)
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return EXIT_OK if answers else EXIT_UNSERVED


class _Session:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self._arguments = arguments
        self._console = console
        self._service = service_options(arguments)
        self._options = load_options(arguments, self._service.asked_model)

    async def run(self) -> tuple[Document, int]:
        """What is written to ``--output``, and how many requests were answered."""
        if self._arguments.baseline:
            return await self._compared()
        if self._arguments.scenario == "queue":
            return await self._queue()
        if self._arguments.scenario == "long-prompt":
            return await self._long_prompt()
        with self._running() if self._arguments.url else started(self._service) as target:
            idle = await idle_cores(target)
            if self._arguments.sweep:
                return await self._swept(target, idle)
            return self._told([await self._measure(target, point, idle) for point in points_of(self._arguments)], {})

    async def _measure(self, target: Target, point: Point, idle: float | None = None) -> Measurement:
        self._report(f"measuring: {point.label}")
        return await measure(target, point, self._options, idle)

    async def _swept(self, target: Target, idle: float | None) -> tuple[Document, int]:
        found, sustained = [], {}
        slo_ms: float = self._arguments.slo_ms
        for protocol in protocols_of(self._arguments):
            one = await sweep(
                (self._arguments.rate or [DEFAULT_RATE])[0],
                slo_ms,
                lambda rate, protocol=protocol: self._measure(target, Point(protocol, rate=rate), idle),  # type: ignore[misc]
            )
            found += one.measurements
            sustained[protocol] = one.sustained
        told = self._told(found, {"sustained_rate": sustained})
        for protocol, rate in sustained.items():
            what = "not even the first rate" if rate is None else f"{rate:.3g} requests/s"
            self._console.print(f"{protocol}: {what} with p95 <= {slo_ms:g} ms")
        return told

    async def _compared(self) -> tuple[Document, int]:
        revision, rounds = self._arguments.baseline, self._arguments.rounds
        with (
            checked_out(this_tree(), revision) as there,
            started(self._service, there) as old,
            started(self._service) as new,
        ):
            points = await compare(old, new, points_of(self._arguments), rounds, self._measure)
        self._console.print(comparison_table(points, revision, rounds))
        return {"baseline": revision, "rounds": rounds, "results": [one.to_dict() for one in points]}, len(points)

    async def _queue(self) -> tuple[Document, int]:
        arguments = self._arguments
        (protocol,) = protocols_of(arguments)[:1]
        own = started_with_queue(self._service, arguments.slots)
        with self._running() if arguments.url else own as target:
            rows = await queue_scenario(
                target, protocol, self._options, arguments.slots, arguments.queued, arguments.rounds, self._report
            )
        self._console.print(queue_table(rows, arguments.slots))
        self._warn([row.measurement for row in rows])
        return {"results": [row.to_dict() for row in rows]}, sum(row.measurement.clients_saw.answers for row in rows)

    async def _long_prompt(self) -> tuple[Document, int]:
        arguments = self._arguments
        (protocol,) = protocols_of(arguments)[:1]
        own = started_with_positions(self._service, arguments.long_prompt + LONG_TOKENS)
        point = Point(protocol, clients=(arguments.clients or DEFAULT_CLIENTS)[0])
        with self._running() if arguments.url else own as target:
            found = await long_prompt_scenario(
                target,
                point,
                self._options,
                arguments.long_prompt,
                arguments.long_clients,
                arguments.rounds,
                self._report,
            )
        self._console.print(long_prompt_table(found, arguments.long_prompt))
        self._warn([found.alone, found.beside])
        return {"results": found.to_dict()}, found.beside.clients_saw.answers

    def _told(self, found: list[Measurement], more: Document) -> tuple[Document, int]:
        """Print and draw; returns what is written."""
        what = f"{self._service.asked_model or 'default model'}, {self._arguments.arrivals} arrivals of open loops"
        self._console.print(latency_table(found, what))
        self._console.print(cost_table(found, what))
        self._warn(found)
        if self._arguments.plot is not None:
            plot(found, self._arguments.slo_ms, self._arguments.plot)
        document = {"model": self._service.asked_model, **more, "results": [one.to_dict() for one in found]}
        return document, sum(one.clients_saw.answers for one in found)

    def _warn(self, found: list[Measurement]) -> None:
        for line in warnings(found):
            self._console.print(line, style="yellow", markup=False)

    def _report(self, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(text, style="dim")

    @contextmanager
    def _running(self) -> Iterator[Target]:
        arguments = self._arguments
        yield Target(arguments.url.rstrip("/"), arguments.grpc or "", arguments.pid, api_key())


def finite(value: object) -> object:
    """JSON knows no nan and no infinity: null stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value
