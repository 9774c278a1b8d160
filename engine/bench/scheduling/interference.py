"""``python -m engine.bench interference``: what a small request's steps cost while a long prompt is prefilled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from engine.bench.revisions import Ratios
from engine.bench.scheduling.load import RequestMaker, make_engine
from engine.executor import Executor, LocalExecutor
from engine.llm_engine import LLMEngine
from engine.model_runner import ModelRunner
from engine.plan import IterationPlan, StepResult
from engine.sequence import Sequence

CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Seconds; CPU time of this process is not lengthened by what else the machine does, and says nothing on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterferenceWorkload:
    """``small`` requests always run. Beside them run none, then ``long`` requests whose life is nearly all prefill:
    each is followed by the next until ``long_requests`` have finished. Without them ``small_requests`` finish.
    ``clock`` is one of CLOCKS."""

    small: int = 4
    small_prompt: int = 32
    small_tokens: int = 64
    small_requests: int = 16
    long: int = 1
    long_prompt: int = 3000
    long_tokens: int = 4
    long_requests: int = 3
    rounds: int = 3
    clock: str = "wall"

    @property
    def max_model_len(self) -> int:
        return max(self.small_prompt + self.small_tokens, self.long_prompt + self.long_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Of small requests: milliseconds from one denoising step to the next of the same request, whatever the engine
    did between them; ``long_s`` is how long a long request took, 0 without any."""

    p50_ms: float
    p95_ms: float
    max_ms: float
    steps: int
    steps_per_s: float
    long_s: float = 0.0

    @classmethod
    def of(cls, intervals_s: Iterable[float], seconds: float, long_s: float) -> StepTimes:
        milliseconds = 1000 * np.array(list(intervals_s))
        p50, p95 = np.percentile(milliseconds, [50, 95])
        return cls(
            p50_ms=float(p50),
            p95_ms=float(p95),
            max_ms=float(milliseconds.max()),
            steps=len(milliseconds),
            steps_per_s=len(milliseconds) / seconds,
            long_s=long_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Interference:
    """The round with the median ratio of p95, and the ratios of all rounds: with long prompts over without."""

    alone: StepTimes
    beside: StepTimes
    p50_ratio: Ratios
    p95_ratio: Ratios
    rate_ratio: Ratios

    @classmethod
    def of(cls, rounds: list[tuple[StepTimes, StepTimes]]) -> Interference:
        ordered = sorted(rounds, key=lambda pair: pair[1].p95_ms / pair[0].p95_ms)
        alone, beside = ordered[(len(ordered) - 1) // 2]
        return cls(
            alone=alone,
            beside=beside,
            p50_ratio=Ratios.of([with_.p50_ms / without.p50_ms for without, with_ in rounds]),
            p95_ratio=Ratios.of([with_.p95_ms / without.p95_ms for without, with_ in rounds]),
            rate_ratio=Ratios.of([with_.steps_per_s / without.steps_per_s for without, with_ in rounds]),
        )

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure_interference(
    shape: str,
    settings: Mapping[str, object],
    strategy: Mapping[str, object],
    workload: InterferenceWorkload,
    report: Callable[[str], None] = lambda _: None,
) -> Interference:
    """Small requests without and with long ones, in turns, after one turn of each that warms up."""
    clocks: list[_DecisionClock] = []

    def executor(runner: ModelRunner) -> Executor:
        clocks.append(_DecisionClock(LocalExecutor(runner), CLOCKS[workload.clock]))
        return clocks[0]

    engine = make_engine(shape, settings, workload.max_model_len, executor)
    mixture = _Mixture(engine, clocks[0], RequestMaker(engine.spec, engine.strategy(strategy)), workload)
    rounds = []
    for number in range(workload.rounds + 1):
        report("warm-up" if number == 0 else f"round {number} of {workload.rounds}")
        rounds.append((mixture.run(with_long=False), mixture.run(with_long=True)))
    return Interference.of(rounds[1:])


class _DecisionClock:
    """A local rank that keeps which slots its last plan decided on, and when that was done."""

    def __init__(self, inner: Executor, now: Callable[[], float]) -> None:
        self._inner = inner
        self._now = now
        self.decided: frozenset[int] = frozenset()
        self.ended_s = 0.0

    def execute(self, plan: IterationPlan) -> StepResult:
        result = self._inner.execute(plan)
        self.decided = frozenset(plan.decoded.slot_N.tolist())
        self.ended_s = self._now()
        return result


@dataclass(slots=True)
class _Turn:
    """What runs now, and what has been seen of it."""

    small: dict[str, Sequence] = field(default_factory=dict)
    long_since_s: dict[str, float] = field(default_factory=dict)
    decided_s: dict[str, float] = field(default_factory=dict)
    intervals_s: list[float] = field(default_factory=list)
    long_s: list[float] = field(default_factory=list)
    small_done: int = 0

    def owners(self) -> dict[int, str]:
        """Small requests by their slots."""
        return {one.slot: name for name, one in self.small.items() if one.slot >= 0}

    def decided(self, request_id: str, now_s: float) -> None:
        """A small request made a denoising step."""
        if request_id in self.decided_s:
            self.intervals_s.append(now_s - self.decided_s[request_id])
        self.decided_s[request_id] = now_s

    def finished(self, request_id: str, now_s: float) -> None:
        """A request left the engine."""
        if request_id in self.long_since_s:
            self.long_s.append(now_s - self.long_since_s.pop(request_id))
            return
        del self.small[request_id]
        self.decided_s.pop(request_id, None)
        self.small_done += 1


class _Mixture:
    """Keeps the engine busy with small and long requests."""

    def __init__(
        self, engine: LLMEngine, clock: _DecisionClock, make: RequestMaker, workload: InterferenceWorkload
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._make = make
        self._workload = workload
        self._now = CLOCKS[workload.clock]

    def run(self, *, with_long: bool) -> StepTimes:
        """One turn; the engine is empty before and after."""
        work, turn = self._workload, _Turn()
        started_s = self._now()
        while len(turn.long_s) < work.long_requests if with_long else turn.small_done < work.small_requests:
            while len(turn.small) < work.small:
                sequence = self._add(work.small_prompt, work.small_tokens)
                turn.small[sequence.request_id] = sequence
            while with_long and len(turn.long_since_s) < work.long:
                turn.long_since_s[self._add(work.long_prompt, work.long_tokens).request_id] = self._now()
            self._step(turn)
        seconds = self._now() - started_s
        for request_id in (*turn.small, *turn.long_since_s):
            self._engine.abort(request_id)
        long_s = float(np.mean(turn.long_s)) if with_long else 0.0
        return StepTimes.of(turn.intervals_s, seconds, long_s)

    def _step(self, turn: _Turn) -> None:
        """A forward may admit a request, decide on it and finish it: slots are known before or after."""
        owners = turn.owners()
        self._clock.decided = frozenset()
        outputs = self._engine.step()
        owners |= turn.owners()
        for slot in self._clock.decided & owners.keys():
            turn.decided(owners[slot], self._clock.ended_s)
        for output in outputs:
            turn.finished(output.request_id, self._now())

    def _add(self, prompt_len: int, max_tokens: int) -> Sequence:
        sequence = self._engine.validate(self._make.make(prompt_len, max_tokens))
        self._engine.add(sequence)
        return sequence
