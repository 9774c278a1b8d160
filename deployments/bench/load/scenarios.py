"""Two questions that each have one command: does a queue make tokens dearer, does a long prompt slow small requests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.table import Table

from deployments.bench.load.generator import in_background
from deployments.bench.load.measure import LoadOptions, Measurement, Point, connected, measure, measure_with
from deployments.bench.load.requests import Lengths
from deployments.bench.load.server_side import Target
from deployments.bench.load.summary import Percentiles
from deployments.bench.load.tables import number
from engine.bench.revisions import Ratios

LONG_TOKENS = 4
"""Tokens of an answer to a long prompt: its work is nearly all prefill."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class QueueRow:
    """``queued`` requests wait while all slots are busy. ``ratio`` is CPU per token over that of the first depth in the
    same round; ``router_ratio`` the router's share of it alone."""

    queued: int
    measurement: Measurement
    cpu_us_per_token: float
    ratio: Ratios
    router_ratio: Ratios

    def to_dict(self) -> dict[str, object]:
        return {
            "queued": self.queued,
            "cpu_us_per_token": self.cpu_us_per_token,
            "ratio": self.ratio.to_dict(),
            "router_ratio": self.router_ratio.to_dict(),
            **self.measurement.to_dict(),
        }


def cpu_us_per_token(measurement: Measurement, role: str | None = None) -> float:
    """Microseconds of all server processes, or of those of a role, per token that clients got."""
    spent = measurement.server.total_cpu_ms if role is None else measurement.server.cpu_ms.get(role, 0.0)
    assert spent is not None, "the service runs on this machine"
    seen = measurement.clients_saw
    return 1000 * spent * seen.answers / max(seen.completion_tokens, 1)


async def queue_scenario(
    target: Target,
    protocol: str,
    options: LoadOptions,
    slots: int,
    depths: Sequence[int],
    rounds: int,
    report: Report,
) -> list[QueueRow]:
    """Every depth in every round; so many clients more than there are slots keep the queue at its depth."""
    options = replace(options, warmup=slots)
    found: list[list[Measurement]] = []
    for round_number in range(rounds):
        report(f"queue: round {round_number + 1} of {rounds}")
        points = [Point(protocol, clients=slots + depth) for depth in depths]
        found.append([await measure(target, point, options) for point in points])
    return [
        _queue_row(depth, [one[place] for one in found], [one[0] for one in found])
        for place, depth in enumerate(depths)
    ]


def _queue_row(depth: int, here: Sequence[Measurement], first: Sequence[Measurement]) -> QueueRow:
    def ratios(role: str | None) -> Ratios:
        pairs = [
            (cpu_us_per_token(one, role), cpu_us_per_token(base, role)) for one, base in zip(here, first, strict=True)
        ]
        return Ratios.of([one / base if base else float("nan") for one, base in pairs])

    return QueueRow(depth, here[-1], cpu_us_per_token(here[-1]), ratios(None), ratios("router"))


def queue_table(rows: Sequence[QueueRow], slots: int) -> Table:
    """Flat is good."""
    table = Table(title=f"CPU of the server per token; {slots} requests run, so many wait", title_justify="left")
    heads = ("waiting", "CPU us/token", f"x {rows[0].queued} waiting", "router x", "tokens/s", "p50 whole ms", "failed")
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        seen = row.measurement.clients_saw
        cells = (number(row.cpu_us_per_token), row.ratio, row.router_ratio, number(seen.tokens_per_s))
        table.add_row(str(row.queued), *map(str, cells), number(seen.total.p50), str(seen.requests - seen.answers))
    return table


@dataclass(frozen=True, slots=True)
class LongPromptResult:
    """Small requests alone and beside long prompts: the last round, and ratios of all."""

    alone: Measurement
    beside: Measurement
    long_prompts: int
    long: Percentiles
    between_p95: Ratios
    first_p95: Ratios
    total_p95: Ratios

    def to_dict(self) -> dict[str, object]:
        ratios = {"between_p95": self.between_p95, "first_p95": self.first_p95, "total_p95": self.total_p95}
        return {
            "alone": self.alone.to_dict(),
            "beside": self.beside.to_dict(),
            "long_prompts": self.long_prompts,
            "ratios": {name: one.to_dict() for name, one in ratios.items()},
        }


async def long_prompt_scenario(
    target: Target, point: Point, options: LoadOptions, prompt_len: int, clients: int, rounds: int, report: Report
) -> LongPromptResult:
    """In every round the small requests alone, then beside ``clients`` that ask long prompts all the time."""
    alone, beside, latencies = [], [], []
    mix = replace(
        options.mix.of(stream=False),
        prompts=Lengths(prompt_len, prompt_len),
        max_tokens=Lengths(LONG_TOKENS, LONG_TOKENS),
    )
    long_requests = (mix.make(index, options.seed + 1) for index in itertools.count())
    async with connected(target, point.protocol) as small, connected(target, point.protocol) as large:
        for number_ in range(rounds):
            report(f"long prompts: round {number_ + 1} of {rounds}")
            alone.append(await measure_with(small, target, point, options))
            async with in_background(large, long_requests, clients) as records:
                beside.append(await measure_with(small, target, point, options))
            latencies += [record for record in records if record.succeeded]
    return LongPromptResult(
        alone[-1],
        beside[-1],
        len(latencies),
        Percentiles.of(one.total_s for one in latencies),
        *(
            Ratios.of([_p95(with_, name) / _p95(without, name) for without, with_ in zip(alone, beside, strict=True)])
            for name in ("between", "first", "total")
        ),
    )


def _p95(measurement: Measurement, name: str) -> float:
    percentiles: Percentiles = getattr(measurement.clients_saw, name)
    return percentiles.p95


def long_prompt_table(found: LongPromptResult, prompt_len: int) -> Table:
    """The less the ratios differ from 1, the less small requests notice."""
    title = (
        f"small requests alone and beside prompts of {prompt_len} tokens (of which {found.long_prompts} were answered)"
    )
    table = Table(title=f"{title}: p50 / p95 ms", title_justify="left")
    for head in ("beside", "between blocks", "first block", "whole", "answers/s", "long: p50 ms"):
        table.add_column(head, justify="left" if head == "beside" else "right")
    for name, one, long in (("nothing", found.alone, ""), ("long prompts", found.beside, number(found.long.p50))):
        seen = one.clients_saw
        cells = (f"{number(each.p50)} / {number(each.p95)}" for each in (seen.between, seen.first, seen.total))
        table.add_row(name, *cells, number(seen.requests_per_s), long)
    table.add_row("p95 ratio", *map(str, (found.between_p95, found.first_p95, found.total_p95)), "", "")
    return table
