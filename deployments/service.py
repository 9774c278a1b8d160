"""GenerationService: one client request, from admission to the last increment. Knows no transport and no Ray."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from deployments.experiments.outcome import Assignment
from deployments.messages import (
    Admission,
    AdmissionRequest,
    GapFill,
    GenerateCall,
    Increment,
    Job,
    ModelCard,
    Prompt,
    PromptEcho,
    SequenceOutcome,
    StrategyPart,
)
from deployments.metrics.spec import Sample
from deployments.replay import SequenceRun
from deployments.strategy_choice import (
    Arm,
    StrategyChoice,
    StrategyChooser,
    StrategyWish,
    choose_strategy,
    parse_wish,
)
from deployments.streams import merge, until
from deployments.telemetry.jobs import JobSpan, JobSpans
from deployments.work import CHARS_PER_TOKEN, scaled, shape_of
from engine.errors import DeadlineExceededError, EngineDeadError, LacunaError, ModelNotFoundError
from engine.outputs import FinishReason, Usage
from engine.work import WorkShape

logger = logging.getLogger(__name__)

HEALTH_TIMEOUT_S = 3.0
ROUTER_PAUSES_S = (0.2, 1.0, 3.0)
ROUTER_ANSWER_S = 2.0
"""The router answers when a request's time has passed, and says what was missing; so long it may take for that."""


class RouterClient(Protocol):
    """What the service asks of the router."""

    async def admit(self, request: AdmissionRequest) -> Admission:
        """Returns when the request may start; raises LacunaError."""

    async def release(
        self, model: str, key: str, outcomes: Sequence[SequenceOutcome] = (), lost: Sequence[str] = ()
    ) -> None:
        """Gives the place back; never fails for an unknown key. ``lost`` replicas did not answer."""

    async def asleep(self, model: str) -> bool:
        """Whether the model has no replica because nobody asks for it."""

    async def absence(self, model: str) -> str:
        """Why no replica of the model runs; nothing while one does."""

    async def metrics(self) -> Sequence[Sequence[Sample]]:
        """What it measures of every model, as one set of samples."""


class EngineClient(Protocol):
    """What the service asks of the engine replicas of one model."""

    def generate(self, call: GenerateCall, replica: str = "") -> AsyncGenerator[Increment]:
        """Increments of one sequence; closing it aborts the sequence. ``replica`` is the router's choice."""

    async def card(self) -> ModelCard: ...

    async def strategies(self) -> list[StrategyPart]: ...

    async def health(self) -> None: ...

    async def metrics(self) -> Sequence[Sequence[Sample]]:
        """What each of the replicas measures; nothing where there are none."""


@dataclass(frozen=True, slots=True)
class JobIncrement:
    """An increment of the job's ``index``-th sequence."""

    index: int
    increment: Increment


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A finished sequence."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[float, ...] = ()
    token_bytes: tuple[bytes, ...] = ()
    echo: PromptEcho | None = None
    gaps: tuple[GapFill, ...] | None = None


class GenerationService:
    """Owns the tasks that give places back; everything else belongs to the request."""

    def __init__(
        self,
        router: RouterClient,
        engines: Mapping[str, EngineClient],
        chooser: StrategyChooser | None = None,
        spans: JobSpans | None = None,
    ) -> None:
        self._router = router
        self._chooser = chooser
        self._spans = spans or JobSpans()
        self._engines = engines
        self._cards: dict[str, ModelCard] = {}
        self._releases: set[asyncio.Task[None]] = set()

    @property
    def model_ids(self) -> tuple[str, ...]:
        return tuple(self._engines)

    def assignment(self, job: Job) -> Assignment | None:
        """The job's place in an experiment; a service without experiments has none."""
        del job
        return None

    async def stream(self, job: Job) -> AsyncGenerator[JobIncrement]:
        """Increments of all sequences as they come. Closing it stops the engines' work and gives the place back.

        A sequence whose replica is lost goes on at another one; its increments show nothing of it.
        """
        engine = self._engine(job.model)
        with self._spans.open(job) as span:
            lease = _Lease(span, asyncio.get_running_loop().time() + job.timeout_s)
            try:
                runs = await self._start(lease)
                streams = [run.increments(engine, partial(self._move, lease), lease.left_s) for run in runs]
                merged = until(merge(streams), lease.left_s())
                async with aclosing(merged):
                    async for index, increment in merged:
                        span.see(index, increment)
                        yield JobIncrement(index, lease.explain(increment))
            finally:
                self._release(lease)

    async def complete(self, job: Job) -> list[Completion]:
        """Run the job to its end; the completions of ``job.calls``, in order."""
        increments: list[list[Increment]] = [[] for _ in job.calls]
        stream = self.stream(job)
        async with aclosing(stream):
            async for item in stream:
                increments[item.index].append(item.increment)
        return [_join(parts) for parts in increments]

    async def card(self, model: str) -> ModelCard:
        """What clients may know about a model; asked once, it does not change while the application runs."""
        if model not in self._cards:
            self._cards[model] = await self._engine(model).card()
        return self._cards[model]

    async def strategies(self, model: str) -> list[StrategyPart]:
        """Decoders and cache policies of a model."""
        return await self._engine(model).strategies()

    async def healthy(self, model: str) -> bool:
        """Whether the model's engine answers and makes progress, or sleeps until somebody asks for it."""
        return await self.ailment(model) is None

    async def ailment(self, model: str) -> str | None:
        """Why the model is not healthy; None when it is."""
        engine = self._engine(model)
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                if not await self._router.asleep(model):
                    await engine.health()
        except (LacunaError, TimeoutError) as error:
            reason = await self._absence(model) or str(error) or f"no answer within {HEALTH_TIMEOUT_S:g} s"
            logger.warning("model %s is not healthy: %s", model, reason)
            return reason
        return None

    async def _absence(self, model: str) -> str:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                return (await self._router.absence(model)).strip()
        except (LacunaError, TimeoutError):
            return "the router does not answer"

    def unknown_model(self, model: str) -> ModelNotFoundError:
        """The error for a model that is not served, with those that are."""
        known = ", ".join(self._engines)
        return ModelNotFoundError(f"The model {model!r} is not served; models are: {known}.", "model")

    def _engine(self, model: str) -> EngineClient:
        try:
            return self._engines[model]
        except KeyError:
            raise self.unknown_model(model) from None

    async def _start(self, lease: _Lease) -> list[SequenceRun]:
        """Choose the strategy and wait for a place for all sequences of the job."""
        job = lease.job
        if job.is_comparison:
            return await self._start_comparison(lease)
        wish = parse_wish(job.calls[0].strategy)
        arm = None if wish.explicit or self._chooser is None else self._chooser.choose(job)
        card = self._cards.get(job.model)  # a model that sleeps is woken by the admission, and says what it is then
        planned = wish.options if card is None else _choose(wish, card, arm).options
        default = {} if card is None else card.default_strategy
        shapes = tuple(
            shape_of(planned, default, prompt_tokens(call.prompt), call.sampling.max_tokens) for call in job.calls
        )
        admission = await self._admit(lease, job.key, shapes, resumed=False)
        lease.strategy = _choose(wish, await self.card(job.model), arm, admission.pressure)
        lease.span.chosen(lease.strategy)
        lease.runs = [
            SequenceRun(replace(call, strategy=lease.strategy.request), shape, replica)
            for call, shape, replica in zip(job.calls, shapes, admission.replicas, strict=True)
        ]
        return lease.runs

    async def _start_comparison(self, lease: _Lease) -> list[SequenceRun]:
        """Every call keeps the strategy that it came with."""
        job = lease.job
        card = self._cards.get(job.model)
        default = {} if card is None else card.default_strategy
        shapes = tuple(
            shape_of(call.strategy, default, prompt_tokens(call.prompt), call.sampling.max_tokens) for call in job.calls
        )
        admission = await self._admit(lease, job.key, shapes, resumed=False)
        lease.runs = [SequenceRun(*one) for one in zip(job.calls, shapes, admission.replicas, strict=True)]
        return lease.runs

    async def _move(self, lease: _Lease, run: SequenceRun) -> str:
        """Another replica for a sequence that has lost its own."""
        lease.span.replica_lost(run.call.request_id, run.replica, len(run.token_ids))
        if run.replica:
            await self._router.release(lease.job.model, "", (), (run.replica,))
        key = f"{run.call.request_id}~{run.attempt}"
        lease.keys.append(key)
        admission = await self._admit(lease, key, (scaled(run.shape, run.num_left),), resumed=True)
        return admission.replicas[0]

    async def _admit(self, lease: _Lease, key: str, shapes: tuple[WorkShape, ...], *, resumed: bool) -> Admission:
        job = lease.job
        request = AdmissionRequest(
            key=key,
            model=job.model,
            shapes=shapes,
            priority=job.priority,
            timeout_s=lease.left_s(),
            api_key_name=job.api_key_name,
            resumed=resumed and not job.is_spare,
            is_spare=job.is_spare,
            traceparent=job.calls[0].traceparent,
            tracestate=job.calls[0].tracestate,
        )
        try:
            async with asyncio.timeout(lease.left_s() + ROUTER_ANSWER_S):
                return await self._ask_router(job, request)
        except TimeoutError:
            raise DeadlineExceededError(
                "The request's time passed while it waited for its turn.", "timeout_ms"
            ) from None

    async def _ask_router(self, job: Job, request: AdmissionRequest) -> Admission:
        """Wait for a place of the job. Serve replaces a router that is lost; whoever waited there waits again at the
        next one."""
        del job
        for pause_s in ROUTER_PAUSES_S:
            try:
                return await self._router.admit(request)
            except EngineDeadError as error:
                logger.warning("request %s asks the router again: %s", request.key, error)
                await asyncio.sleep(pause_s)
        return await self._router.admit(request)

    def _release(self, lease: _Lease) -> None:
        """Give back every place that the job holds; the first one says what its sequences have cost."""
        outcomes = tuple(run.outcome for run in lease.runs)
        first, *others = lease.keys
        self._tell_router(self._router.release(lease.job.model, first, outcomes))
        for key in others:
            self._tell_router(self._router.release(lease.job.model, key))

    def _tell_router(self, call: Coroutine[Any, Any, None]) -> None:
        """In a task with an empty context: Serve cancels the calls that a cancelled request has made, and this one
        must arrive."""
        task = asyncio.get_running_loop().create_task(call, context=contextvars.Context())
        self._releases.add(task)
        task.add_done_callback(self._released)

    def _released(self, task: asyncio.Task[None]) -> None:
        self._releases.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("a place was not given back and expires with its request's deadline: %s", error)


@dataclass(slots=True)
class _Lease:
    """What a job holds at the router: ``keys`` of its places, until ``deadline`` of the event loop's clock."""

    span: JobSpan
    deadline: float
    keys: list[str] = field(default_factory=list)
    runs: list[SequenceRun] = field(default_factory=list)
    strategy: StrategyChoice | None = None

    def __post_init__(self) -> None:
        self.keys.append(self.job.key)

    @property
    def job(self) -> Job:
        """The job, whose calls are parts of its span."""
        return self.span.job

    def explain(self, increment: Increment) -> Increment:
        """The increment with the reason for its strategy, where it says which was used."""
        output = increment.output
        if self.strategy is None or output.usage.strategy is None:
            return increment
        return replace(increment, output=replace(output, usage=self.strategy.explain(output.usage)))

    def left_s(self) -> float:
        """Time that is left."""
        return self.deadline - asyncio.get_running_loop().time()


def prompt_tokens(prompt: Prompt) -> int:
    """About how many tokens a prompt has; the router needs no more."""
    if prompt.token_ids is not None:
        return len(prompt.token_ids)
    texts = [prompt.text or ""] + [message.content for message in prompt.messages or ()]
    return sum(map(len, texts)) // CHARS_PER_TOKEN + 1


def add_usage(usages: list[Usage], num_choices: int = 1) -> Usage:
    """The sum over a job's sequences, which share one strategy; a prompt counts once for all its choices."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages[::num_choices]),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        forwards=sum(usage.forwards for usage in usages),
        denoising_steps=sum(usage.denoising_steps for usage in usages),
        positions_computed=sum(usage.positions_computed for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages[::num_choices]),
        strategy=next((usage.strategy for usage in usages if usage.strategy), None),
    )


def _choose(wish: StrategyWish, card: ModelCard, arm: Arm | None, pressure: float = 0.0) -> StrategyChoice:
    return choose_strategy(wish, card.presets, card.default_strategy, arm, pressure)


def _join(parts: list[Increment]) -> Completion:
    outputs = [part.output for part in parts]
    if not outputs or outputs[-1].finish_reason is None:
        raise LacunaError("The engine ended a sequence without saying why.")
    return Completion(
        text="".join(output.text for output in outputs),
        token_ids=tuple(token for output in outputs for token in output.token_ids),
        finish_reason=outputs[-1].finish_reason,
        usage=outputs[-1].usage,
        logprobs=tuple(logprob for output in outputs for logprob in output.logprobs),
        token_bytes=tuple(token for part in parts for token in part.token_bytes or ()),
        echo=parts[0].echo,
        gaps=parts[-1].gaps,
    )
