"""Every span and attribute that the application makes, and the table of them in the documentation.

python -m deployments.telemetry.catalog --write
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.span_catalog import ENGINE_SPANS, SpanSpec

TABLE = Path(__file__).with_name("SPANS.md")

_FAILED = {"error.type": "class of the error, or the status, where the server failed"}
_CANCELLED = {"lacuna.cancelled": "true: the client went, or somebody else made it end early"}

HTTP_SERVER = SpanSpec(
    "METHOD ROUTE",
    "ingress",
    "an HTTP request (not `/health` and `/metrics`), named e.g. `POST /v1/completions`",
    {
        "http.request.method": "method",
        "http.route": "route, where there is one",
        "http.response.status_code": "status",
        "url.path": "path; the query is left out",
        "url.scheme": "http or https",
        "network.protocol.version": "version of HTTP",
        "server.address": "where the ingress listens",
        "server.port": "its port",
        "client.address": "who asks: the proxy, or the client behind it",
        "user_agent.original": "what the client calls itself",
        **_FAILED,
    },
)
RPC_SERVER = SpanSpec(
    "lacuna.v1.Generation/RPC",
    "ingress",
    "a gRPC call, named e.g. `lacuna.v1.Generation/Generate`",
    {
        "rpc.system.name": "grpc",
        "rpc.method": "service and method",
        "rpc.response.status_code": "status, e.g. OK or RESOURCE_EXHAUSTED",
        **_FAILED,
    },
)
JOB = SpanSpec(
    "lacuna.job",
    "ingress",
    "a generation request, from its admission to its last increment; the event `lacuna.replica_lost` (attributes "
    "`lacuna.request_id`, `lacuna.replica`, `lacuna.tokens`) tells of a sequence that goes on elsewhere",
    {
        "gen_ai.operation.name": "chat, text_completion, infill or compare",
        "gen_ai.provider.name": "lacuna",
        "gen_ai.request.model": "model",
        "gen_ai.request.choice.count": "answers per prompt",
        "gen_ai.request.max_tokens": "most tokens of an answer",
        "gen_ai.request.temperature": "temperature",
        "gen_ai.request.top_k": "most likely tokens that are drawn from",
        "gen_ai.request.top_p": "share of the probability that is drawn from",
        "gen_ai.request.seed": "seed of the first answer",
        "gen_ai.request.stream": "whether the answer comes in increments",
        "gen_ai.response.id": "id of the answer",
        "gen_ai.response.finish_reasons": "stop or length, of each finished sequence",
        "gen_ai.response.time_to_first_chunk": "seconds to the first increment",
        "gen_ai.usage.input_tokens": "prompt tokens, once for all answers to a prompt",
        "gen_ai.usage.output_tokens": "completion tokens",
        "gen_ai.input.messages": "the prompts, with `record_prompts` only",
        "gen_ai.output.messages": "the answers, with `record_prompts` only",
        "session.id": "the client's session",
        "lacuna.job": "the request's key in the router and in logs",
        "lacuna.sequences": "sequences (prompts x answers)",
        "lacuna.priority": "priority, smaller goes first",
        "lacuna.api_key_name": "name of the API key",
        "lacuna.shadow": "true: an experiment repeats an answered request, to which the span has a link",
        "lacuna.strategy.name": "strategy; of an experiment, EXPERIMENT/ARM",
        "lacuna.strategy.chosen_by": "explicit, arm, goal or default",
        "lacuna.strategy.adjusted": "true: made faster under load",
        "lacuna.strategy.reason": "why, where there is more to say",
        "lacuna.forwards": "passes of the network, of all sequences and attempts",
        "lacuna.denoising_steps": "those that decided positions",
        "lacuna.positions_computed": "positions fed to the network",
        "lacuna.tokens_per_forward": "completion tokens / forwards (TPF)",
        **_CANCELLED,
        **_FAILED,
    },
)
ADMISSION = SpanSpec(
    "lacuna.admission",
    "router",
    "waiting for a place, and where that is; once more for a sequence that has lost its replica",
    {
        "gen_ai.request.model": "model",
        "lacuna.job": "the request's key; with `~N` for the N-th replay of a sequence",
        "lacuna.sequences": "places that it needs",
        "lacuna.priority": "priority, smaller goes first",
        "lacuna.resumed": "true: it had started before and goes first",
        "lacuna.spare": "true: it starts at once or not at all",
        "lacuna.queued": "requests that waited when it came",
        "lacuna.waited_s": "seconds that it waited",
        "lacuna.pressure": "load per place of the model, above 1 requests wait",
        "lacuna.predicted_positions": "positions that it is predicted to compute",
        "lacuna.replicas": "the replica of each sequence",
        **_FAILED,
    },
)
GENERATE = SpanSpec(
    "lacuna.generate",
    "engine",
    "one attempt at one sequence, in the engine's replica",
    {
        "lacuna.request_id": "the sequence's id",
        "lacuna.attempt": "0, and one more with each replica that was lost",
        "session.id": "the client's session",
        **_CANCELLED,
        **_FAILED,
    },
)
DEPLOYMENT_SPANS = (HTTP_SERVER, RPC_SERVER, JOB, ADMISSION, GENERATE)


def table(specs: Sequence[SpanSpec]) -> str:
    """The page of the documentation."""
    lines = [
        "# Spans",
        "",
        "Made by `python -m deployments.telemetry.catalog --write`; a test fails when it is out of date.",
        "What belongs to what: the request's span > `lacuna.job` > `lacuna.admission` and, per sequence,",
        "`lacuna.generate` > `lacuna.sequence` > `lacuna.queue`, `lacuna.prefill`, `lacuna.block` > `lacuna.forward`.",
    ]
    for spec in specs:
        lines += ["", f"## `{spec.name}`", "", f"{spec.component}: {spec.covers}.", ""]
        if spec.attributes:
            lines += ["| attribute | meaning |", "| --- | --- |"]
            lines += [f"| `{name}` | {meaning} |" for name, meaning in spec.attributes.items()]
        else:
            lines.append("No attributes.")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Print the page, or write it to its place."""
    parser = argparse.ArgumentParser(prog="python -m deployments.telemetry.catalog", description="The table of spans.")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} instead of printing it")
    text = table((*DEPLOYMENT_SPANS, *ENGINE_SPANS))
    if parser.parse_args(arguments).write:
        TABLE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
