"""The engine's loop body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from engine.cache.block_manager import BlockManager
from engine.errors import DeadlineExceededError, LacunaError
from engine.executor import Executor
from engine.iteration import IterationManager, SlotEvent
from engine.outputs import CanvasStep, FinishReason, Usage
from engine.plan import IterationPlan, StepResult
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.sequence_spans import SequenceSpans
from engine.step_meter import StepMeter, StepReadings
from engine.telemetry import EngineTelemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceUpdate:
    """News of one request: further tokens of its completion that are final (with their log-probabilities), what it
    has cost, and how it ended; ``error`` where the engine gave it up."""

    sequence: Sequence
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    usage: Usage
    finish_reason: FinishReason | None
    stop_token_id: int | None
    canvas: CanvasStep | None
    error: LacunaError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot for operators. ``tokens`` counts completion tokens handed out, ``forwards`` passes of the network,
    ``positions`` the query positions fed to it. ``kv_positions`` are those of the running canvases, of
    ``num_pages * page_size`` that there is K/V memory for. Requests that wait are predicted to compute
    ``waiting_positions``; ``preemptions`` counts how often a running one had to make room, ``cached_tokens`` those
    prompt tokens of finished requests that were not computed, as others had been through them. ``graph_forwards`` were
    replayed as CUDA graphs; ``idle_positions`` are those of ``positions`` that were computed for blocks which a step
    between two looks of the host had completed."""

    num_running: int
    num_waiting: int
    num_free_slots: int
    num_slots: int
    num_free_pages: int
    num_pages: int
    page_size: int
    kv_positions: int
    forwards: int
    positions: int
    tokens: int
    waiting_positions: int
    preemptions: int
    cached_tokens: int
    graph_forwards: int = 0
    idle_positions: int = 0


class EngineCore:
    """Owns the running requests; everything else belongs to the parts it calls in turn."""

    def __init__(
        self,
        scheduler: Scheduler,
        blocks: BlockManager,
        iteration: IterationManager,
        executor: Executor,
        telemetry: EngineTelemetry | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._scheduler = scheduler
        self._blocks = blocks
        self._iteration = iteration
        self._executor = executor
        self._spans = SequenceSpans(telemetry or EngineTelemetry(), iteration.slots)
        self._running: dict[int, Sequence] = {}
        self._meter = StepMeter()
        self._num_forwards = 0
        self._num_positions = 0
        self._num_tokens = 0
        self._num_preemptions = self._num_cached = 0
        self._clock = clock
        self._num_graph_forwards = 0

    def step(self) -> list[SequenceUpdate]:
        """Give up, admit, plan, execute, advance, retire. Without anything to run it returns at once."""
        started_s = self._clock()
        given_up = [self._give_up(sequence) for sequence in self._scheduler.too_late(started_s)]
        self._admit(started_s)
        plan = self._iteration.plan()
        if plan is None:
            return given_up
        result, execute_s = self._execute(plan)
        updates = [self._update(event) for event in self._iteration.advance(plan, result)]
        for update in updates:
            if update.finish_reason is not None:
                self._scheduler.finished(update.sequence, update.usage)
                self._num_cached += update.usage.cached_tokens
                self._retire(update.sequence, update.finish_reason)
        step_s = self._clock() - started_s
        self._scheduler.took(step_s)
        self._meter.stepped(step_s, execute_s, result.forward_s)
        return given_up + updates

    def add(self, sequence: Sequence) -> None:
        """Queue a request; OverloadedError when the queue is full."""
        self._spans.open(sequence)
        try:
            self._scheduler.add(sequence, self._clock())
        except LacunaError as error:
            if sequence.trace is not None:
                sequence.trace.fail(error)
            raise
        sequence.queued_s = self._clock()

    def abort(self, sequence: Sequence, reason: FinishReason = "abort") -> None:
        """Drop a request in any state; slot and pages are free before the next step."""
        if sequence.slot < 0:
            self._scheduler.remove(sequence)
            self._meter.ended(reason)
            self._spans.close(sequence, reason, len(self._running))
        else:
            self._retire(sequence, reason)

    def usage(self, sequence: Sequence) -> Usage:
        """What a request has cost so far."""
        slots, slot = self._iteration.slots, sequence.slot
        if slot < 0:
            return Usage(prompt_tokens=len(sequence.prompt_ids), completion_tokens=sequence.num_emitted)
        return Usage(
            prompt_tokens=len(sequence.prompt_ids),
            completion_tokens=sequence.num_emitted,
            forwards=int(slots.forwards[slot]),
            denoising_steps=int(slots.denoising_steps[slot]),
            positions_computed=int(slots.positions[slot]),
            cached_tokens=min(int(slots.reused[slot]), len(sequence.prompt_ids)),
        )

    def stats(self) -> EngineStats:
        slots = self._iteration.slots
        return EngineStats(
            num_running=len(self._running),
            num_waiting=self._scheduler.num_waiting,
            num_free_slots=self._scheduler.num_free_slots,
            num_slots=len(slots.running),
            num_free_pages=self._blocks.num_free_pages,
            num_pages=self._blocks.num_pages,
            page_size=self._blocks.page_size,
            kv_positions=int((slots.canvas_len * (1 + (slots.guide_slot >= 0)))[slots.running].sum()),
            forwards=self._num_forwards,
            positions=self._num_positions,
            tokens=self._num_tokens,
            waiting_positions=self._scheduler.waiting_positions,
            preemptions=self._num_preemptions,
            cached_tokens=self._num_cached,
            graph_forwards=self._num_graph_forwards,
            idle_positions=self._iteration.num_idle_positions,
        )

    def readings(self) -> StepReadings:
        """What has been measured of the steps so far; may be called from any thread."""
        return self._meter.readings()

    def _admit(self, now_s: float) -> None:
        while True:
            for sequence, pages in self._scheduler.admit(now_s, self._num_forwards):
                self._iteration.admit(sequence, pages)
                self._running[sequence.slot] = sequence
                self._spans.admitted(sequence)
                self._meter.waited(now_s - sequence.queued_s)
            victims = self._scheduler.victims()
            if not victims or any(self._iteration.slots.closing[victim.slot] for victim in victims):
                return
            for victim in victims:
                self._preempt(victim, now_s)

    def _preempt(self, sequence: Sequence, now_s: float) -> None:
        """Have a running request wait again; it keeps what is decided before its block in progress."""
        self._spans.suspended(sequence, len(self._running))
        del self._running[sequence.slot]
        self._iteration.suspend(sequence)
        self._scheduler.release(sequence)
        sequence.num_preemptions += 1
        sequence.queued_s = now_s
        self._num_preemptions += 1
        self._scheduler.requeue(sequence, now_s)

    def _give_up(self, sequence: Sequence) -> SequenceUpdate:
        """End a request that has no chance to be done by its deadline."""
        usage, waited = self.usage(sequence), sequence.slot < 0
        what = "is too near: it still waits for a slot" if waited else "passed before all of its tokens were decided"
        error = DeadlineExceededError(f"the request's deadline {what}", "timeout_ms")
        if sequence.trace is not None:
            sequence.trace.fail(error)
            sequence.trace = None
        if waited:
            self._meter.ended("deadline")
        else:
            self._retire(sequence, "abort", "deadline")
        return SequenceUpdate(
            sequence=sequence,
            token_ids=(),
            logprobs=(),
            usage=usage,
            finish_reason="abort",
            stop_token_id=None,
            canvas=None,
            error=error,
        )

    def _execute(self, plan: IterationPlan) -> tuple[StepResult, float]:
        """The forward's result, and the seconds that it took."""
        plan = self._spans.before(plan)
        planned_s = self._clock()
        result = self._executor.execute(plan)
        execute_s = self._clock() - planned_s
        self._spans.after()
        self._count(plan)
        self._num_graph_forwards += plan.num_steps if result.replayed else 0
        return result, execute_s

    def _count(self, plan: IterationPlan) -> None:
        rows = plan.rows
        num_positions = int((rows.q_end_R - rows.q_start_R).sum())
        self._num_forwards += plan.num_steps
        self._num_positions += num_positions * plan.num_steps
        for _ in range(plan.num_steps):
            self._meter.forwarded(len(rows.slot_R), num_positions)

    def _update(self, event: SlotEvent) -> SequenceUpdate:
        sequence = self._running[event.slot]
        slots = self._iteration.slots
        new = slice(sequence.num_emitted, event.completion_len)
        fresh = tuple(slots.completion(event.slot)[new].tolist())
        logprobs = np.log(np.maximum(slots.probabilities(event.slot)[new], np.finfo(np.float32).tiny))
        sequence.num_emitted += len(fresh)
        self._num_tokens += len(fresh)
        self._spans.update(sequence, len(self._running))
        return SequenceUpdate(
            sequence=sequence,
            token_ids=fresh,
            logprobs=tuple(logprobs.tolist()),
            usage=self.usage(sequence),
            finish_reason=event.finish_reason,
            stop_token_id=event.stop_token_id,
            canvas=self._canvas(sequence) if sequence.request.stream == "step" else None,
        )

    def _canvas(self, sequence: Sequence) -> CanvasStep:
        slots, slot = self._iteration.slots, sequence.slot
        generated = slice(len(sequence.prompt_ids), slots.canvas_len[slot])
        return CanvasStep(
            token_ids=tuple(slots.tokens[slot, generated].tolist()),
            revealed_at=tuple(slots.revealed_at[slot, generated].tolist()),
            probabilities=tuple(slots.probability[slot, generated].tolist()),
        )

    def _retire(self, sequence: Sequence, reason: FinishReason, counted_as: str = "") -> None:
        self._meter.ended(counted_as or reason)
        self._spans.close(sequence, reason, len(self._running))
        del self._running[sequence.slot]
        self._iteration.release(sequence.slot)
        self._scheduler.release(sequence)
