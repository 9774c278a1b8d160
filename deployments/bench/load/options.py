"""Options of ``bench serve`` and what they mean together."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from deployments.bench.load.arrivals import ARRIVALS, BURST
from deployments.bench.load.generator import Limit
from deployments.bench.load.measure import PROTOCOLS, LoadOptions, Point
from deployments.bench.load.requests import Lengths, LoadRequest, RequestMix, read_prompts, task_prompts
from deployments.bench.load.targets import ServiceOptions
from deployments.config import EMBEDDED_MODELS
from engine.errors import InvalidRequestError
from engine.strategy_text import parse_strategy_text, parse_value

API_KEY = "LACUNA_KEY"
"""The environment variable with the API key, where the service wants one."""
SCENARIOS = ("queue", "long-prompt")
DEFAULT_CLIENTS = (1, 8)
DEFAULT_DURATION_S = 20.0
DEFAULT_RATE = 1.0
N = TypeVar("N", int, float)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    _add_service(parser)
    _add_load(parser)
    _add_requests(parser)
    parser.add_argument("--slo-ms", type=_above_zero(float), help="objective for whole answers: prints goodput")
    parser.add_argument("--sweep", action="store_true", help="raise the rate until p95 breaks --slo-ms")
    parser.add_argument("--scenario", choices=SCENARIOS, help="cost of a queue; small requests beside long prompts")
    parser.add_argument("--queued", type=_above_zero(int), nargs="+", default=[1, 16, 64, 256], help="waiting requests")
    parser.add_argument("--slots", type=_above_zero(int), default=16, help="running requests of --scenario queue")
    parser.add_argument("--long-prompt", type=_above_zero(int), default=3000, help="tokens of long prompts")
    parser.add_argument("--long-clients", type=_above_zero(int), default=1, help="that ask long prompts at once")
    parser.add_argument("--rounds", type=_above_zero(int), default=3, help="of --baseline and --scenario")
    parser.add_argument("--output", type=Path, help="also write the results there, as JSON")
    parser.add_argument("--plot", type=Path, help="also draw latency over throughput there, as SVG")


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", action="append", help=f"to start and to ask (default: {EMBEDDED_MODELS[0]})")
    parser.add_argument("--config", type=Path, help="settings of the service to start, as of `lacuna serve`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one of these settings")
    parser.add_argument(
        "--engine", type=_setting, action="append", default=[], metavar="KEY=VALUE", help="a setting of its engine"
    )
    parser.add_argument("--url", help=f"a running service instead; its key stands in ${API_KEY}")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="its gRPC port")
    parser.add_argument("--pid", type=_above_zero(int), help="its `lacuna serve` on this machine, to count CPU time")
    parser.add_argument("--baseline", metavar="REV", help="start this commit's service too, and print ratios")


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", choices=[*PROTOCOLS, "both"], default="http")
    parser.add_argument("--clients", type=_above_zero(int), nargs="+", help="closed loop: requests in flight")
    parser.add_argument("--rate", type=_above_zero(float), nargs="+", help="open loop: requests per second")
    parser.add_argument(
        "--arrivals", choices=ARRIVALS, default="poisson", help=f"of an open loop; burst: {BURST} at once"
    )
    parser.add_argument("--duration", type=_above_zero(float), help="seconds of a point (default: 20)")
    parser.add_argument(
        "--requests", type=_above_zero(int), help="answers of a closed loop, instead of or within --duration"
    )
    parser.add_argument("--warmup", type=_at_least_zero, help="answers before the clock starts")
    parser.add_argument("--seed", type=int, default=0, help="of requests and arrivals")


def _add_requests(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompt", type=_lengths, help="random tokens instead of questions: 128 or 32-256")
    source.add_argument(
        "--data", type=Path, help="JSON lines with prompt, and if need be max_tokens, strategy, priority"
    )
    parser.add_argument(
        "--generate", type=_lengths, default=Lengths(64, 64), help="tokens of a completion: 64 or 16-128"
    )
    parser.add_argument("--mixed", action="store_true", help="completions of a quarter up to the whole length")
    parser.add_argument("--strategy", action="append", help="as of `lacuna eval`; repeat it to mix several")
    parser.add_argument("--priority", type=int, nargs="+", default=[0], help="several are mixed")
    parser.add_argument("--no-stream", action="store_true", help="answers that come whole")
    parser.add_argument("--stop-early", action="store_true", help="let the model end answers before their length")
    parser.add_argument("--timeout", type=_above_zero(float), default=120.0, help="seconds of a request")


def check(arguments: argparse.Namespace) -> None:
    """InvalidRequestError where options contradict each other: none is ever ignored."""
    for refused, message in (*_combinations(arguments), *_needs(arguments)):
        if refused:
            raise InvalidRequestError(message)


def _combinations(given: argparse.Namespace) -> Iterator[tuple[bool, str]]:
    """What is refused, and why."""
    exclusive = ("url", "baseline"), ("scenario", "baseline"), ("scenario", "sweep"), ("baseline", "sweep")
    for one, other in exclusive:
        yield bool(getattr(given, one) and getattr(given, other)), f"--{one} and --{other} cannot be combined"
    own = given.config or given.set or given.engine
    yield bool(given.url and own), "--config, --set and --engine are for a service that is started, not for --url"
    yield bool(given.scenario and given.rate), "--scenario is a closed loop; it takes no --rate"
    yield bool(given.scenario and given.protocol == "both"), "--scenario takes one protocol"
    yield given.scenario == "queue" and bool(given.clients), "--scenario queue has --slots and --queued clients"
    drawn = given.scenario or given.baseline
    yield bool(given.plot and drawn), "--plot draws points of load, no --scenario and no --baseline"


def _needs(given: argparse.Namespace) -> Iterator[tuple[bool, str]]:
    yield given.sweep and given.slo_ms is None, "--sweep needs the objective --slo-ms"
    several = given.clients or len(given.rate or []) > 1
    yield bool(given.sweep and several), "--sweep takes one --rate to begin with, and no --clients"
    yield bool((given.grpc or given.pid) and not given.url), "--grpc and --pid belong to --url"
    yield bool(given.url and given.protocol != "http" and not given.grpc), "--protocol grpc needs --grpc HOST:PORT"
    counts = given.url and given.scenario == "queue" and not given.pid
    yield bool(counts), "--scenario queue counts CPU time; name the process behind --url with --pid"
    unnamed = given.config and not given.model and (given.engine or given.scenario)
    yield bool(unnamed), "--engine and --scenario need --model beside --config"


def points_of(arguments: argparse.Namespace) -> list[Point]:
    """Closed loops, then open ones, for each protocol."""
    clients = arguments.clients or ([] if arguments.rate else DEFAULT_CLIENTS)
    return [
        point
        for protocol in protocols_of(arguments)
        for point in (
            *(Point(protocol, clients=count) for count in clients),
            *(Point(protocol, rate=rate) for rate in arguments.rate or ()),
        )
    ]


def service_options(arguments: argparse.Namespace) -> ServiceOptions:
    """What is started; of a running service only the name of its model matters."""
    models = arguments.model or ([] if arguments.config or arguments.url else [EMBEDDED_MODELS[0]])
    return ServiceOptions(models=models, engine=dict(arguments.engine), config=arguments.config, settings=arguments.set)


def protocols_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    return PROTOCOLS if arguments.protocol == "both" else (arguments.protocol,)


def load_options(arguments: argparse.Namespace, model: str) -> LoadOptions:
    """What is asked, and for how long."""
    base = LoadRequest(
        prompt="",
        max_tokens=0,
        model=model,
        stream=not arguments.no_stream,
        ignore_eos=not arguments.stop_early,
        timeout_s=arguments.timeout,
    )
    prompts = arguments.prompt
    if prompts is None:
        prompts = task_prompts(arguments.seed) if arguments.data is None else read_prompts(arguments.data)
    mix = RequestMix(
        prompts=prompts,
        max_tokens=arguments.generate.mixed() if arguments.mixed else arguments.generate,
        base=base,
        strategies=[parse_strategy_text(text) for text in arguments.strategy or ["{}"]],
        priorities=arguments.priority,
    )
    duration_s = arguments.duration or DEFAULT_DURATION_S
    seconds = None if arguments.requests and not arguments.duration else duration_s
    return LoadOptions(
        mix=mix,
        limit=Limit(arguments.requests, seconds),
        duration_s=duration_s,
        arrivals=arguments.arrivals,
        warmup=arguments.warmup,
        slo_ms=arguments.slo_ms,
        seed=arguments.seed,
    )


def api_key() -> str:
    return os.environ.get(API_KEY, "")


def _setting(text: str) -> tuple[str, object]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"takes key=value, got {text!r}")
    return name, parse_value(value)


def _lengths(text: str) -> Lengths:
    try:
        return Lengths.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _above_zero(kind: type[N]) -> Callable[[str], N]:
    def number(text: str) -> N:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    return number


def _at_least_zero(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value
