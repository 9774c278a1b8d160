"""The panels of the dashboard, row by row. Every metric of the catalogue is on at least one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.dashboard.queries import level, mean, quantile, rate
from deployments.metrics.spec import Row


@dataclass(frozen=True, slots=True)
class Query:
    """``legend`` is Grafana's template over labels."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """``unit`` is Grafana's id of it."""

    title: str
    unit: str
    text: str
    queries: tuple[Query, ...]
    stacked: bool = False


def _quantiles(name: str, *by: str, shares: tuple[float, ...] = (0.5, 0.95, 0.99)) -> tuple[Query, ...]:
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return tuple(Query(quantile(share, name, *by), f"p{100 * share:g} {legend}".strip()) for share in shares)


def _ratio(above: str, below: str, *by: str) -> str:
    return f"{rate(above, *by)} / {rate(below, *by)}"


TRAFFIC = (
    Panel(
        "Requests",
        "reqps",
        "Answered requests by transport, route and class of the status.",
        (Query(rate("requests", "transport", "route", "status"), "{{transport}} {{route}} {{status}}"),),
    ),
    Panel(
        "Generation requests in flight",
        "short",
        "Waiting and running, as the ingress replicas see them.",
        (Query(level("generations_in_flight", "model"), "{{model}}"),),
    ),
    Panel(
        "Tokens",
        "short",
        "Tokens per second of prompts and completions.",
        (
            Query(rate("completion_tokens", "model"), "{{model}} completion"),
            Query(rate("prompt_tokens", "model"), "{{model}} prompt"),
        ),
    ),
    Panel(
        "Completion tokens by strategy",
        "short",
        "Tokens per second of each strategy.",
        (Query(rate("completion_tokens", "model", "strategy"), "{{model}} {{strategy}}"),),
        stacked=True,
    ),
)
LATENCY = (
    Panel(
        "Request duration",
        "s",
        "From arrival to the end of the answer, streams included.",
        _quantiles("request_duration_seconds", "transport", shares=(0.5, 0.95, 0.99)),
    ),
    Panel(
        "Time to the first increment",
        "s",
        "Of generation requests, their time in the queue included.",
        _quantiles("first_increment_seconds", "model", "strategy", shares=(0.5, 0.95)),
    ),
    Panel(
        "Generation duration",
        "s",
        "Finished generation requests.",
        _quantiles("generation_duration_seconds", "model", "strategy", shares=(0.5, 0.95)),
    ),
    Panel(
        "Time in the router's queue",
        "s",
        "Of admitted requests.",
        _quantiles("queue_wait_seconds", "model"),
    ),
)
QUEUE = (
    Panel(
        "Queue depth",
        "short",
        "Requests that wait at the router.",
        (Query(level("router_queue_depth", "model"), "{{model}}"),),
    ),
    Panel(
        "Predicted work",
        "s",
        "Seconds of denoising that wait and run, if one replica had to do it all. What autoscaling looks at.",
        (Query(level("router_predicted_work_seconds", "model"), "{{model}}"),),
    ),
    Panel(
        "Sequences in flight and places",
        "short",
        "Work waits at the router once the places are taken.",
        (
            Query(level("router_in_flight", "model"), "{{model}} in flight"),
            Query(level("router_places", "model"), "{{model}} places"),
        ),
    ),
    Panel(
        "Replicas",
        "short",
        "Live engine replicas, and how many the load needs.",
        (
            Query(level("router_replicas", "model"), "{{model}} live"),
            Query(level("router_wanted_replicas", "model"), "{{model}} wanted"),
        ),
    ),
    Panel(
        "Admitted requests and lost replicas",
        "cps",
        "A replica counts as lost when it stops answering and when it is scaled down.",
        (
            Query(rate("router_admitted", "model"), "{{model}} admitted"),
            Query(rate("router_lost_replicas", "model"), "{{model}} lost replicas"),
        ),
    ),
    Panel(
        "Measured rate",
        "short",
        "Positions per second that the router believes the replicas compute.",
        (Query(level("router_positions_per_second", "model"), "{{model}}"),),
    ),
)
DECODING = (
    Panel(
        "Tokens per forward (TPF)",
        "short",
        "Completion tokens per pass of the network, by strategy.",
        (Query(_ratio("completion_tokens", "forwards", "model", "strategy"), "{{model}} {{strategy}}"),),
    ),
    Panel(
        "TPF of requests",
        "short",
        "Distribution over finished requests.",
        _quantiles("tokens_per_forward", "model", "strategy", shares=(0.1, 0.5, 0.9)),
    ),
    Panel(
        "Forwards per request (NFE)",
        "short",
        "Distribution over finished requests.",
        _quantiles("forwards_per_request", "model", "strategy", shares=(0.5, 0.95)),
    ),
    Panel(
        "Forwards that decide",
        "percentunit",
        "Denoising steps per forward; the rest are prefills and commits of their own.",
        (Query(_ratio("denoising_steps", "forwards", "model", "strategy"), "{{model}} {{strategy}}"),),
    ),
    Panel(
        "Positions computed per token",
        "short",
        "What a strategy's cache saves: positions fed to the network for one completion token.",
        (Query(_ratio("positions_computed", "completion_tokens", "model", "strategy"), "{{model}} {{strategy}}"),),
    ),
    Panel(
        "Time per step",
        "s",
        "Mean by phase: the network, the decisions, the host.",
        (Query(mean("engine_step_seconds", "model", "phase"), "{{model}} {{phase}}"),),
        stacked=True,
    ),
    Panel(
        "Time per step, 95th percentile",
        "s",
        "By phase and replica.",
        _quantiles("engine_step_seconds", "replica", "phase", shares=(0.95,)),
    ),
    Panel(
        "Forwards and tokens of engines",
        "cps",
        "Passes of the network, each for a whole batch, and the tokens that they gave.",
        (
            Query(rate("engine_forwards", "model", "replica"), "{{model}} {{replica}} forwards"),
            Query(rate("engine_tokens", "model", "replica"), "{{model}} {{replica}} tokens"),
        ),
    ),
    Panel(
        "Positions computed by engines",
        "cps",
        "Query positions per second.",
        (Query(rate("engine_positions", "model", "replica"), "{{model}} {{replica}}"),),
    ),
    Panel(
        "Batch size: rows",
        "short",
        "Rows per forward.",
        (Query(mean("engine_forward_rows", "model"), "mean {{model}}"), *_quantiles("engine_forward_rows", "model")),
    ),
    Panel(
        "Batch size: positions",
        "short",
        "Query positions per forward.",
        (
            Query(mean("engine_forward_positions", "model"), "mean {{model}}"),
            *_quantiles("engine_forward_positions", "model"),
        ),
    ),
    Panel(
        "Slots and sequences",
        "short",
        "Running and waiting sequences of the engines, and their slots.",
        (
            Query(level("engine_running_sequences", "model"), "{{model}} running"),
            Query(level("engine_waiting_sequences", "model"), "{{model}} waiting"),
            Query(level("engine_slots", "model", "state"), "{{model}} slots {{state}}"),
        ),
    ),
    Panel(
        "Pages",
        "short",
        "Pages of K/V memory.",
        (Query(level("engine_pages", "model", "replica", "state"), "{{model}} {{replica}} {{state}}"),),
    ),
    Panel(
        "K/V memory in use",
        "percentunit",
        "Positions of running canvases per position that there is memory for.",
        (
            Query(
                level("engine_kv_positions", "model", "replica", state="used")
                + " / "
                + level("engine_kv_positions", "model", "replica", state="capacity"),
                "{{model}} {{replica}}",
            ),
        ),
    ),
    Panel(
        "Time in the engine's queue",
        "s",
        "Of admitted sequences, for a slot.",
        _quantiles("engine_queue_wait_seconds", "model"),
    ),
    Panel(
        "Ended sequences",
        "cps",
        "By reason; abort: the client went, deadline: its time had passed.",
        (Query(rate("engine_sequences", "model", "reason"), "{{model}} {{reason}}"),),
        stacked=True,
    ),
    Panel(
        "Work that waits in engines",
        "short",
        "Query positions that waiting sequences should take.",
        (Query(level("engine_waiting_positions", "model", "replica"), "{{model}} {{replica}}"),),
    ),
    Panel(
        "Shared prompts and preemptions",
        "short",
        "Prompt tokens per second that were known already, and running sequences per second that had to wait again.",
        (
            Query(rate("engine_cached_tokens", "model"), "{{model}} known tokens"),
            Query(rate("engine_preemptions", "model"), "{{model}} preemptions"),
        ),
    ),
)
ERRORS = (
    Panel(
        "Errors by class",
        "cps",
        "Generation requests that ended with an error; Cancelled: the client went.",
        (Query(rate("generation_errors", "model", "error"), "{{model}} {{error}}"),),
        stacked=True,
    ),
    Panel(
        "Refused requests",
        "cps",
        "Requests that got no place, by reason.",
        (Query(rate("router_refused", "model", "reason"), "{{model}} {{reason}}"),),
        stacked=True,
    ),
    Panel(
        "Replays and expired places",
        "cps",
        "Sequences that went on at another replica, and places of requests whose ingress is gone.",
        (
            Query(rate("replays", "model"), "{{model}} replays"),
            Query(rate("router_expired_leases", "model"), "{{model}} expired places"),
        ),
    ),
    Panel(
        "Scrape",
        "short",
        "Processes that answered the last scrape, components that did not, and its duration in seconds.",
        (
            Query(level("scrape_replicas", "component", "model"), "{{component}} {{model}} answered"),
            Query(level("scrape_failed", "component", "model"), "{{component}} {{model}} failed"),
            Query(level("scrape_duration_seconds"), "seconds"),
        ),
    ),
)
EXPERIMENTS = (
    Panel(
        "Tokens by arm",
        "short",
        "Completion tokens per second.",
        (Query(rate("completion_tokens", "model", "arm"), "{{model}} {{arm}}"),),
    ),
    Panel(
        "TPF by arm",
        "short",
        "Completion tokens per forward.",
        (Query(_ratio("completion_tokens", "forwards", "model", "arm"), "{{model}} {{arm}}"),),
    ),
    Panel(
        "Generation duration by arm",
        "s",
        "Finished generation requests.",
        _quantiles("generation_duration_seconds", "model", "arm", shares=(0.5, 0.95)),
    ),
    Panel(
        "Errors by arm",
        "cps",
        "Generation requests that ended with an error.",
        (Query(rate("generation_errors", "model", "arm", "error"), "{{model}} {{arm}} {{error}}"),),
    ),
    Panel(
        "Shadow runs",
        "cps",
        "Runs of an experiment's shadow arm; dropped: not begun, or ended for a live request.",
        (Query(rate("shadow_runs", "state"), "{{state}}"),),
    ),
    Panel(
        "Ledger",
        "short",
        "Records per second, failed attempts, what waits, and whether it can be written (per ingress replica).",
        (
            Query(rate("ledger_records", "result"), "{{result}}"),
            Query(rate("ledger_failures"), "failed attempts"),
            Query(level("ledger_pending_records"), "pending"),
            Query(level("ledger_healthy"), "replicas that write"),
        ),
    ),
)
PANELS: Mapping[Row, tuple[Panel, ...]] = {
    "Traffic": TRAFFIC,
    "Latency": LATENCY,
    "Queue and autoscaling": QUEUE,
    "Engine and decoding": DECODING,
    "Errors": ERRORS,
    "Experiments": EXPERIMENTS,
}
