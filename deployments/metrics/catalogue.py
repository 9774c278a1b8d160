"""Every metric that ``/metrics`` has: the one place for its name, type, unit, help, labels, buckets and dashboard row.

What measures takes names, labels and buckets from here, the exposition types and help; the dashboard, the alert rules
and the table in the documentation are generated from it. No label's value is ever a client's own text: models, routes,
arms and strategies come from the server's tables, errors are names of classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from deployments.metrics.spec import MetricSpec, Section
from engine.step_meter import BATCH_POSITIONS, BATCH_ROWS, STEP_SECONDS, WAIT_SECONDS

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKENS_PER_FORWARD = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
FORWARDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
CHOICE = ("model", "strategy", "arm")
"""``arm`` is EXPERIMENT/ARM, empty outside experiments."""

_traffic = Section("ingress", "Traffic", ("replica",))
_latency = Section("ingress", "Latency", ("replica",))
_decoding = Section("ingress", "Engine and decoding", ("replica",))
_errors = Section("ingress", "Errors", ("replica",))
_experiments = Section("ingress", "Experiments", ("replica",))
_router = Section("router", "Queue and autoscaling", ("model",))
_refusals = Section("router", "Errors", ("model",))
_engine = Section("engine", "Engine and decoding", ("replica", "model"))
_scrape = Section("scrape", "Errors", ())

INGRESS = (
    _traffic.counter(
        "requests",
        "requests",
        "Answered requests by transport (http, grpc), route or RPC, served model and class of the status (of a gRPC "
        "code: the HTTP status that says the same).",
        *("transport", "route", "model", "status"),
    ),
    _traffic.gauge("generations_in_flight", "requests", "Generation requests that wait or run at an ingress.", "model"),
    _traffic.counter("prompt_tokens", "tokens", "Tokens of prompts; once for all choices of a prompt.", *CHOICE),
    _traffic.counter("completion_tokens", "tokens", "Tokens that requests were given.", *CHOICE),
    _latency.histogram(
        "request_duration_seconds",
        "seconds",
        SECONDS,
        "From a request's arrival at the ingress to the end of its answer, streams included.",
        *("transport", "route"),
    ),
    _latency.histogram(
        "first_increment_seconds",
        "seconds",
        SECONDS,
        "From a generation request's start, its time in the queue included, to its first increment.",
        *CHOICE,
    ),
    _latency.histogram(
        "generation_duration_seconds",
        "seconds",
        SECONDS,
        "From a generation request's start to the end of its last sequence; finished requests only.",
        *CHOICE,
    ),
    _latency.histogram(
        "queue_wait_seconds", "seconds", WAIT_SECONDS, "How long admitted requests had waited in the router.", "model"
    ),
    _decoding.counter(
        "forwards",
        "forwards",
        "Passes of the network in which a request took part (NFE), summed over requests.",
        *CHOICE,
    ),
    _decoding.counter(
        "denoising_steps", "steps", "Passes that decided positions of a request, summed over requests.", *CHOICE
    ),
    _decoding.counter(
        "positions_computed", "positions", "Query positions fed to the network for requests, summed.", *CHOICE
    ),
    _decoding.histogram(
        "forwards_per_request", "forwards", FORWARDS, "Passes of the network per finished request (NFE).", *CHOICE
    ),
    _decoding.histogram(
        "tokens_per_forward",
        "tokens per forward",
        TOKENS_PER_FORWARD,
        "Completion tokens per pass of the network (TPF) of a finished request.",
        *CHOICE,
    ),
    _errors.counter(
        "generation_errors",
        "requests",
        "Generation requests that ended with an error, by its class; Cancelled: the client went.",
        *("model", "arm", "error"),
    ),
    _errors.counter("replays", "sequences", "Sequences that lost their replica and went on at another one.", "model"),
    _experiments.counter(
        "shadow_runs", "requests", "Shadow runs by state: started, finished, dropped (a live request came).", "state"
    ),
    _experiments.counter(
        "ledger_records",
        "records",
        "Records of experiments: written, dropped (no room) or refused (by the database).",
        "result",
    ),
    _experiments.counter("ledger_failures", "attempts", "Attempts to write to the ledger that failed."),
    _experiments.gauge("ledger_pending_records", "records", "Records that wait to be written to the ledger."),
    _experiments.gauge("ledger_healthy", "bool", "1 while the ledger can be written."),
)
ROUTER = (
    _router.gauge("router_queue_depth", "requests", "Requests that wait."),
    _router.gauge("router_in_flight", "sequences", "Sequences that were let start."),
    _router.gauge(
        "router_predicted_work_seconds",
        "seconds",
        "Predicted denoising work of all that waits and runs, on one replica.",
    ),
    _router.gauge("router_positions_per_second", "positions per second", "Measured rate of all replicas together."),
    _router.gauge("router_places", "sequences", "Sequences that may run at once on all live replicas."),
    _router.gauge("router_replicas", "replicas", "Engine replicas that live."),
    _router.gauge("router_wanted_replicas", "replicas", "Autoscaling target; only of models that scale."),
    _router.counter("router_admitted", "requests", "Requests that were given a place."),
    _router.counter("router_lost_replicas", "replicas", "Engine replicas that stopped answering or were taken down."),
    _refusals.counter(
        "router_refused",
        "requests",
        "Requests that were given no place: queue_full, key_share (their API key's), queue_timeout, deadline, or "
        "no_spare_place (shadow runs).",
        "reason",
    ),
    _refusals.counter("router_expired_leases", "requests", "Places taken back from requests whose ingress is gone."),
)
ENGINE = (
    _engine.gauge("engine_slots", "sequences", "Places for running sequences, by state: used, free.", "state"),
    _engine.gauge("engine_running_sequences", "sequences", "Sequences that run."),
    _engine.gauge("engine_waiting_sequences", "sequences", "Sequences that wait for a slot or pages in the engine."),
    _engine.gauge("engine_waiting_positions", "positions", "Query positions that waiting sequences should take."),
    _engine.gauge("engine_pages", "pages", "Pages of K/V memory, by state: used, free.", "state"),
    _engine.gauge(
        "engine_kv_positions",
        "positions",
        "Positions of K/V memory: used by the canvases that run, and the capacity of all pages.",
        "state",
    ),
    _engine.counter("engine_forwards", "forwards", "Passes of the network, each for a whole batch."),
    _engine.counter("engine_positions", "positions", "Query positions fed to the network."),
    _engine.counter("engine_tokens", "tokens", "Completion tokens handed out."),
    _engine.counter(
        "engine_cached_tokens", "tokens", "Prompt tokens of finished sequences whose K/V were known already."
    ),
    _engine.counter(
        "engine_preemptions", "preemptions", "Running sequences that had to wait again for more urgent ones."
    ),
    _engine.counter(
        "engine_sequences",
        "sequences",
        "Sequences that left the engine by reason: stop, length, abort, deadline.",
        "reason",
    ),
    _engine.histogram(
        "engine_step_seconds",
        "seconds",
        STEP_SECONDS,
        "Time per step by phase: forward (the network), decide (output head, decoders, copy to the host), host "
        "(admission, planning, results).",
        "phase",
    ),
    _engine.histogram(
        "engine_queue_wait_seconds", "seconds", WAIT_SECONDS, "How long sequences had waited in the engine for a slot."
    ),
    _engine.histogram("engine_forward_rows", "rows", BATCH_ROWS, "Rows per forward: the size of batches."),
    _engine.histogram(
        "engine_forward_positions", "positions", BATCH_POSITIONS, "Query positions per forward: the size of batches."
    ),
)
SCRAPE = (
    _scrape.gauge("scrape_replicas", "replicas", "Processes that answered this scrape.", "component", "model"),
    _scrape.gauge(
        "scrape_failed", "bool", "1 where a component did not answer this scrape in time.", "component", "model"
    ),
    _scrape.gauge("scrape_duration_seconds", "seconds", "How long this scrape took to collect."),
)
METRICS: Mapping[str, MetricSpec] = MappingProxyType(
    {spec.name: spec for spec in (*INGRESS, *ROUTER, *ENGINE, *SCRAPE)}
)
