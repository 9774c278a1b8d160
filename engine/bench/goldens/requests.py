"""Running requests through an engine to their end, and keeping what it says about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.bench.goldens.case import RowRun
from engine.errors import LacunaError
from engine.outputs import RequestOutput
from engine.sequence import GenerationRequest
from engine.strategy import Strategy

MAX_SILENT_STEPS = 1000
"""So many steps without news of any request mean that the engine does not progress."""


class Engine(Protocol):
    """The part of ``LLMEngine`` that a replay uses."""

    def strategy(self, options: Mapping[str, object]) -> Strategy: ...
    def add_request(self, request: GenerationRequest) -> None: ...
    def step(self) -> list[RequestOutput]: ...
    def has_unfinished_requests(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """Requests that ended, and why the others did not, by request id."""

    runs: dict[str, RowRun] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def run_requests(engine: Engine, requests: Sequence[GenerationRequest]) -> Outcome:
    """Submit all requests, step until none is left. A refused request is an error of its own; one of the engine
    itself is an error of every request that has not ended."""
    outcome = Outcome()
    tokens: dict[str, list[int]] = {}
    for request in requests:
        try:
            engine.add_request(request)
            tokens[request.request_id] = []
        except LacunaError as error:
            outcome.errors[request.request_id] = str(error)
    try:
        _step_to_end(engine, tokens, outcome)
    except Exception as error:  # noqa: BLE001 - reported as a failure of each case that it hits
        reason = f"the engine failed: {type(error).__name__}: {error}"
        outcome.errors.update(dict.fromkeys(tokens.keys() - outcome.runs.keys(), reason))
    return outcome


def _step_to_end(engine: Engine, tokens: Mapping[str, list[int]], outcome: Outcome) -> None:
    silent = 0
    while engine.has_unfinished_requests():
        outputs = engine.step()
        silent = 0 if outputs else silent + 1
        if silent > MAX_SILENT_STEPS:
            raise RuntimeError(f"no news of {len(tokens) - len(outcome.runs)} requests in {silent} steps")
        for output in outputs:
            tokens[output.request_id].extend(output.token_ids)
            if output.finish_reason is not None:
                _keep(output, tokens[output.request_id], outcome)
    missing = tokens.keys() - outcome.runs.keys() - outcome.errors.keys()
    outcome.errors.update(dict.fromkeys(missing, "the engine never reported the end of the request"))


def _keep(output: RequestOutput, token_ids: Sequence[int], outcome: Outcome) -> None:
    assert output.finish_reason is not None
    if output.canvas is None:
        outcome.errors[output.request_id] = "the last output carries no canvas"
        return
    outcome.runs[output.request_id] = RowRun(
        token_ids=tuple(token_ids),
        finish_reason=output.finish_reason,
        usage=output.usage,
        canvas=output.canvas,
    )
