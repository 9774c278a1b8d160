from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from engine.bench.goldens.requests import run_requests
from engine.errors import InvalidRequestError
from engine.outputs import CanvasStep, RequestOutput, Usage
from engine.sequence import GenerationRequest
from engine.strategy import Strategy

CANVAS = CanvasStep(token_ids=(5, 6), revealed_at=(1, 2), probabilities=(0.5, 0.9))


class ScriptedEngine:
    """Plays back the outputs of each step; ``refused`` request ids are invalid."""

    def __init__(self, script: Sequence[list[RequestOutput]], refused: frozenset[str] = frozenset()) -> None:
        self._script = deque(script)
        self._refused = refused
        self.endless = False

    def strategy(self, options: Mapping[str, object]) -> Strategy:
        raise AssertionError("strategies are made before requests are run")

    def add_request(self, request: GenerationRequest) -> None:
        if request.request_id in self._refused:
            raise InvalidRequestError("no such thing")

    def step(self) -> list[RequestOutput]:
        return self._script.popleft() if self._script else []

    def has_unfinished_requests(self) -> bool:
        return self.endless or bool(self._script)


class BrokenEngine(ScriptedEngine):
    def step(self) -> list[RequestOutput]:
        raise IndexError("slot 3")


def request(name: str) -> GenerationRequest:
    return GenerationRequest(request_id=name, prompt=(1, 2))


def last(name: str, *token_ids: int, canvas: CanvasStep | None = CANVAS) -> RequestOutput:
    return RequestOutput(
        request_id=name, token_ids=token_ids, finish_reason="length", canvas=canvas, usage=Usage(forwards=2)
    )


def test_increments_add_up() -> None:
    engine = ScriptedEngine([[RequestOutput(request_id="a", token_ids=(5,))], [last("a", 6)]])
    run = run_requests(engine, [request("a")]).runs["a"]
    assert (run.token_ids, run.usage.forwards, run.canvas) == ((5, 6), 2, CANVAS)


def test_refused_request_does_not_stop_the_others() -> None:
    outcome = run_requests(ScriptedEngine([[last("a", 5)]], frozenset({"b"})), [request("a"), request("b")])
    assert outcome.errors == {"b": "no such thing"}
    assert list(outcome.runs) == ["a"]


def test_broken_engine_fails_every_request_that_has_not_ended() -> None:
    engine = BrokenEngine([[]])
    assert run_requests(engine, [request("a")]).errors == {"a": "the engine failed: IndexError: slot 3"}


def test_engine_without_progress_is_given_up() -> None:
    engine = ScriptedEngine([])
    engine.endless = True
    assert "no news of 1 requests" in run_requests(engine, [request("a")]).errors["a"]


def test_request_that_vanishes_or_has_no_canvas_is_an_error() -> None:
    engine = ScriptedEngine([[last("a", 5, canvas=None)], []])
    errors = run_requests(engine, [request("a"), request("b")]).errors
    assert errors == {
        "a": "the last output carries no canvas",
        "b": "the engine never reported the end of the request",
    }
