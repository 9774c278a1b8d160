"""Stand-ins for the router and the engines, where neither is what is tested."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence

import httpx

from deployments.api_keys import KeyRing
from deployments.config import AppConfig
from deployments.events import EventDiffer
from deployments.experiments.controller import ExperimentController
from deployments.http_app import build_http_app
from deployments.messages import (
    Admission,
    AdmissionRequest,
    Gap,
    GapFill,
    GenerateCall,
    Increment,
    ModelCard,
    PromptEcho,
    SequenceOutcome,
    StrategyPart,
)
from deployments.metered import MeteredService
from deployments.metrics.service_metrics import ServiceMetrics
from deployments.metrics.spec import Sample, gauge
from deployments.telemetry.jobs import JobSpans
from deployments.telemetry.tracing import OFF, Tracing
from engine.errors import LacunaError
from engine.outputs import CanvasStep, RequestOutput, StrategyUsed, Usage

MASK = 99
LOGPROBS = (-0.5, -1.0, math.nan)
ECHO = PromptEcho(text="hi", token_ids=(1, 2), token_bytes=(b"h", b"i"))


class FakeRouter:
    """Admits at once, after a while, or never; remembers what was released."""

    def __init__(
        self,
        refusal: LacunaError | None = None,
        *,
        never: bool = False,
        wait_s: float = 0.0,
        pressure: float = 0.0,
    ) -> None:
        self.wait_s = wait_s
        self.pressure = pressure
        self.refusal = refusal
        self.never = never
        self.admitted: list[AdmissionRequest] = []
        self.released: list[str] = []
        self.outcomes: list[SequenceOutcome] = []
        self.lost: list[str] = []
        self.sleeping = False
        self.missing = ""

    async def admit(self, request: AdmissionRequest) -> Admission:
        if self.never:
            await asyncio.Event().wait()
        await asyncio.sleep(self.wait_s)
        if self.refusal is not None:
            raise self.refusal
        self.admitted.append(request)
        return Admission(tuple(f"replica-{index}" for index, _ in enumerate(request.shapes)), self.pressure)

    async def release(
        self, model: str, key: str, outcomes: Sequence[SequenceOutcome] = (), lost: Sequence[str] = ()
    ) -> None:
        self.lost += lost
        self.outcomes += outcomes
        if key:
            self.released.append(key)

    async def absence(self, model: str) -> str:
        return self.missing

    async def asleep(self, model: str) -> bool:
        return self.sleeping

    async def metrics(self) -> list[list[Sample]]:
        return [[gauge("router_in_flight", len(self.admitted) - len(self.released), model="fake")]]


class FakeEngine:
    """Answers every call with the same words; waits before each, and fails after ``fail_after`` increments."""

    def __init__(
        self,
        words: Sequence[str] = ("Hello", " world"),
        delay_s: float = 0.0,
        fail_after: int | None = None,
        error: Exception | None = None,
        unhealthy: LacunaError | None = None,
        presets: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        self.presets = presets or {"fast": {"preset": "fast@2", "threshold": 0.5}}
        self.words = words
        self.delay_s = delay_s
        self.fail_after = fail_after
        self.error = error
        self.unhealthy = unhealthy
        self.calls: list[GenerateCall] = []
        self.running: set[str] = set()

    async def generate(self, call: GenerateCall, replica: str = "") -> AsyncGenerator[Increment]:
        self.calls.append(call)
        self.running.add(call.request_id)
        differ = EventDiffer(str, MASK, len(self.words))
        try:
            if call.template is not None:
                yield self._filled(call)
                return
            for index, word in enumerate(self.words):
                await asyncio.sleep(self.delay_s)
                if index == self.fail_after:
                    assert self.error is not None
                    raise self.error
                yield self._increment(call, index, word, differ)
        finally:
            self.running.discard(call.request_id)

    def _filled(self, call: GenerateCall) -> Increment:
        assert call.template is not None
        usage = Usage(prompt_tokens=3, completion_tokens=2, forwards=1, denoising_steps=1, positions_computed=8)
        fill = GapFill(
            text="".join(self.words),
            token_ids=tuple(range(len(self.words))),
            logprobs=LOGPROBS[: len(self.words)],
            token_bytes=tuple(word.encode() for word in self.words),
            finish_reason="length",
        )
        gaps = tuple(fill for part in call.template if isinstance(part, Gap))
        output = RequestOutput(request_id=call.request_id, usage=usage, finish_reason="length")
        return Increment(output, gaps=gaps, echo=ECHO if call.echo else None)

    def _increment(self, call: GenerateCall, index: int, word: str, differ: EventDiffer) -> Increment:
        count = index + 1
        is_step = call.stream in ("step", "events")
        masked = len(self.words) - count
        canvas = CanvasStep(
            token_ids=(*range(count), *[MASK] * masked),
            revealed_at=(*range(1, count + 1), *[0] * masked),
            probabilities=(*(math.exp(LOGPROBS[one % len(LOGPROBS)]) for one in range(count)), *[math.nan] * masked),
        )
        output = RequestOutput(
            request_id=call.request_id,
            text=word,
            token_ids=(index,),
            logprobs=(LOGPROBS[index % len(LOGPROBS)],),
            usage=Usage(
                prompt_tokens=3,
                completion_tokens=count,
                forwards=count,
                denoising_steps=count,
                positions_computed=8 * count,
                strategy=StrategyUsed(name="fast", version=2, options={"threshold": 0.5}) if masked == 0 else None,
            ),
            finish_reason="stop" if masked == 0 else None,
            canvas=canvas if is_step else None,
        )
        return Increment(
            output,
            canvas_texts=(*self.words[:count], *[""] * masked) if call.stream == "step" else None,
            token_bytes=(word.encode(),) if call.logprobs else None,
            events=differ.events(output) if call.stream == "events" else (),
            echo=ECHO if call.echo and index == 0 else None,
        )

    async def card(self) -> ModelCard:
        return ModelCard(
            id="fake",
            description="",
            architecture="FakeForCausalLM",
            attention="bidirectional",
            block_length=4,
            max_model_len=64,
            default_strategy={"decoder": "threshold"},
            presets=self.presets,
        )

    async def strategies(self) -> list[StrategyPart]:
        return [
            StrategyPart(
                name="threshold", kind="decoder", summary="s", source="p", schema={"type": "object"}, traits=["edits"]
            ),
            StrategyPart(
                name="fast",
                kind="preset",
                summary="s",
                source="p",
                schema={},
                families=["fake"],
                version=2,
                goal="fast",
                options={"threshold": 0.5},
            ),
        ]

    async def metrics(self) -> list[list[Sample]]:
        return [
            [gauge("engine_running_sequences", len(self.running), replica=name)] for name in ("engine-1", "engine-2")
        ]

    async def health(self) -> None:
        if self.unhealthy is not None:
            raise self.unhealthy


class FakeFleet:
    """Replicas that live, as a test says."""

    def __init__(self, ids: Sequence[str] = ("x",)) -> None:
        self.ids: Sequence[str] = ids
        self.error: LacunaError | None = None
        self.asked = 0
        self.reason = ""

    async def live(self) -> Sequence[str]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return tuple(self.ids)

    async def absence(self) -> str:
        return self.reason


def metered(
    engine: FakeEngine, router: FakeRouter | None = None, spans: JobSpans | None = None, **others: FakeEngine
) -> MeteredService:
    """A service whose engine is called "fake"."""
    experiments = ExperimentController(AppConfig.parse({"models": "fake=/x"}))
    engines = {"fake": engine, **others}
    return MeteredService(router or FakeRouter(), engines, experiments, ServiceMetrics("replica-1"), spans=spans)


def http_client(
    config: AppConfig,
    engine: FakeEngine,
    router: FakeRouter | None = None,
    keys: KeyRing | None = None,
    tracing: Tracing = OFF,
    **others: FakeEngine,
) -> httpx.AsyncClient:
    """A client of the whole HTTP application over fakes."""
    spans = JobSpans(tracing.tracer(), record_prompts=tracing.record_prompts)
    app = build_http_app(metered(engine, router, spans, **others), config, keys or KeyRing([]), tracing)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")
