"""``python -m engine.bench queue``: CPU time per token while 1 to 256 requests wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from engine.bench.revisions import Ratios
from engine.bench.scheduling.load import RequestMaker, make_engine
from engine.executor import Executor, LocalExecutor
from engine.llm_engine import LLMEngine
from engine.model_runner import ModelRunner
from engine.plan import IterationPlan, StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWorkload:
    """Every slot is busy and ``depths`` requests wait, in turns; ``requests`` finish while the time is taken. Whoever
    finishes is followed by two: one of those that wait is cancelled, so that clients who give up are paid for too."""

    depths: Sequence[int] = (1, 16, 64, 256)
    prompt_len: int = 32
    max_tokens: int = 64
    requests: int = 32
    rounds: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCost:
    """CPU time of this process per token that was handed out: all of it, and what the host did around forwards."""

    queued: int
    tokens: int
    us_per_token: float
    host_us_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """A depth of the queue: the least cost of all rounds, and cost over that of the first depth in the same round."""

    cost: QueueCost
    ratio: Ratios
    host_ratio: Ratios

    def to_dict(self) -> dict[str, object]:
        return asdict(self.cost) | {"ratio": self.ratio.to_dict(), "host_ratio": self.host_ratio.to_dict()}


class _CountedExecutor:
    """A local rank whose CPU time is counted."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.cpu_s = 0.0

    def execute(self, plan: IterationPlan) -> StepResult:
        started = time.process_time()
        result = self._inner.execute(plan)
        self.cpu_s += time.process_time() - started
        return result


def measure_queue(
    shape: str,
    settings: Mapping[str, object],
    strategy: Mapping[str, object],
    workload: QueueWorkload,
    report: Callable[[str], None] = lambda _: None,
) -> list[QueueRow]:
    """Every depth in every round, in turns, after one measurement that warms up."""
    executors: list[_CountedExecutor] = []

    def executor(runner: ModelRunner) -> Executor:
        executors.append(_CountedExecutor(LocalExecutor(runner)))
        return executors[0]

    engine = make_engine(shape, settings, workload.prompt_len + workload.max_tokens, executor)
    queue = _Queue(engine, executors[0], RequestMaker(engine.spec, engine.strategy(strategy)), workload)
    queue.cost(workload.depths[0])
    rounds = []
    for number in range(workload.rounds):
        report(f"round {number + 1} of {workload.rounds}")
        rounds.append([queue.cost(depth) for depth in workload.depths])
    return compare_depths(rounds)


def compare_depths(rounds: Sequence[Sequence[QueueCost]]) -> list[QueueRow]:
    """``rounds[i][j]`` is the j-th depth in round i."""
    return [
        QueueRow(
            cost=min(costs, key=lambda one: one.us_per_token),
            ratio=Ratios.of([one.us_per_token / ones[0].us_per_token for one, ones in zip(costs, rounds, strict=True)]),
            host_ratio=Ratios.of(
                [one.host_us_per_token / ones[0].host_us_per_token for one, ones in zip(costs, rounds, strict=True)]
            ),
        )
        for costs in zip(*rounds, strict=True)
    ]


class _Queue:
    """Owns the order of the requests in the engine."""

    def __init__(
        self, engine: LLMEngine, executor: _CountedExecutor, make: RequestMaker, workload: QueueWorkload
    ) -> None:
        self._engine = engine
        self._executor = executor
        self._make = make
        self._workload = workload
        self._ids: dict[str, None] = {}

    def cost(self, queued: int) -> QueueCost:
        """Fill slots and queue, let the first requests finish, then measure; the engine is empty before and after."""
        slots = self._engine.config.max_num_seqs
        for _ in range(slots + queued):
            self._add()
        self._finish(slots)
        executed, started = self._executor.cpu_s, time.process_time()
        tokens = self._finish(self._workload.requests)
        total_s = time.process_time() - started
        host_s = total_s - (self._executor.cpu_s - executed)
        for request_id in list(self._ids):
            self._engine.abort(request_id)
        self._ids.clear()
        return QueueCost(
            queued=queued,
            tokens=tokens,
            us_per_token=1e6 * total_s / tokens,
            host_us_per_token=1e6 * host_s / tokens,
        )

    def _finish(self, requests: int) -> int:
        """Step until so many have finished, each replaced by another; their tokens."""
        finished = tokens = 0
        while finished < requests:
            for output in self._engine.step():
                finished += 1
                tokens += output.usage.completion_tokens
                del self._ids[output.request_id]
                self._add()
                self._add()
                self._cancel_waiting()
        return tokens

    def _add(self) -> None:
        request = self._make.make(self._workload.prompt_len, self._workload.max_tokens)
        self._engine.add_request(request)
        self._ids[request.request_id] = None

    def _cancel_waiting(self) -> None:
        """The one in the middle of the queue gives up: the oldest have slots."""
        waiting = list(self._ids)[self._engine.config.max_num_seqs :]
        given_up = waiting[len(waiting) // 2]
        self._engine.abort(given_up)
        del self._ids[given_up]
