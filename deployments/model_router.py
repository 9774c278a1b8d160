"""The router's part for one model: who waits, who runs where, and which replicas live."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from deployments.admission import AdmissionQueue, Entry, QueueLimits
from deployments.autoscaling import AutoscalingSettings, ModelLoad, desired_replicas
from deployments.messages import Admission, AdmissionRequest, SequenceOutcome
from deployments.metrics.router_samples import RouterReport
from deployments.placement import ReplicaPool, Share
from engine.errors import DeadlineExceededError, LacunaError
from engine.work import WorkModel

logger = logging.getLogger(__name__)

LEASE_GRACE_S = 5.0
WATCH_S = 1.0
WATCH_FAST_S = 0.2


class Fleet(Protocol):
    """The engine replicas of a model, as they are now."""

    async def live(self) -> Sequence[str]:
        """Ids of the replicas that answer and are healthy; LacunaError where that cannot be known now."""

    async def absence(self) -> str:
        """Why no replica runs, as far as is known: what the cluster lacks, or how the start has failed."""


class ModelRouter:
    """Owns the queue and the placement of one model, and the task that watches its replicas.

    A request is admitted once and must be released once; a lease whose request is past its deadline is taken back,
    so an ingress that dies holds no place for ever.
    """

    def __init__(
        self,
        fleet: Fleet,
        capacity_per_replica: int,
        limits: QueueLimits,
        queue_timeout_s: float,
        autoscaling: AutoscalingSettings | None = None,
    ) -> None:
        self._fleet = fleet
        self._queue = AdmissionQueue(limits)
        self._pool = ReplicaPool(capacity_per_replica)
        self._capacity_per_replica = capacity_per_replica
        self._queue_timeout_s = queue_timeout_s
        self._autoscaling = autoscaling
        self._work = WorkModel()
        self._requests: dict[str, AdmissionRequest] = {}
        self._admitted: dict[str, asyncio.Future[Admission]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._num_admitted = self._num_lost = self._num_expired = 0

    @property
    def load(self) -> ModelLoad:
        """What autoscaling and operators look at."""
        return ModelLoad(
            queued=len(self._queue.waiting),
            in_flight=self._queue.in_flight,
            work=self._queue.work,
            replicas=len(self._pool.replicas),
            positions_per_s=self._pool.positions_per_s,
            places_per_replica=self._capacity_per_replica,
        )

    @property
    def wanted_replicas(self) -> int | None:
        """How many replicas the load needs; None where autoscaling is off."""
        return desired_replicas(self.load, self._autoscaling) if self._autoscaling else None

    @property
    def report(self) -> RouterReport:
        """What operators see."""
        return RouterReport(
            load=self.load,
            wanted_replicas=self.wanted_replicas,
            admitted=self._num_admitted,
            refused=dict(self._queue.refused),
            lost_replicas=self._num_lost,
            expired_leases=self._num_expired,
        )

    @property
    def asleep(self) -> bool:
        """No replica runs, and none is wanted: the first request wakes one."""
        return not self._pool.replicas and self.wanted_replicas == 0

    async def absence(self) -> str:
        """A sentence about a model of which no replica runs; nothing while one does."""
        if self._pool.replicas:
            return ""
        reason = await self._fleet.absence()
        return f" No replica of the model runs: {reason}" if reason else " No replica of the model runs."

    def watch(self) -> None:
        """Keep looking after replicas and leases; needs a running event loop."""
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """End the watching."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def admit(self, request: AdmissionRequest) -> Admission:
        """Wait for a place. Cancelling the call gives the place up. OverloadedError, DeadlineExceededError."""
        self.watch()
        entry, queued = self._entry(request), len(self._queue.waiting)
        admitted = self._admitted[entry.key] = asyncio.get_running_loop().create_future()
        self._requests[entry.key] = request
        try:
            self._wake(self._queue.submit(entry, self._pool.positions_per_s))
            return replace(await self._wait(entry, admitted), work=entry.work, queued=queued)
        except BaseException:
            self._requests.pop(entry.key, None)
            self._forget(entry.key)
            raise
        finally:
            self._admitted.pop(entry.key, None)

    def release(self, key: str, outcomes: Sequence[SequenceOutcome] = ()) -> None:
        """Give a place back, or leave the queue. Releasing twice, or what was never admitted, does nothing."""
        if self._requests.pop(key, None) is None:
            return
        for outcome in outcomes:
            if outcome.finished:
                self._work.learn(outcome.shape, outcome.usage)
        positions = Counter[str]()
        for outcome in outcomes:
            positions[outcome.replica] += outcome.usage.positions_computed
        self._forget(key, positions if outcomes else None)

    def lost(self, replica: str) -> None:
        """A replica does not answer; nothing is sent there until it is seen alive again."""
        before = len(self._pool.replicas)
        self._lose(self._pool.remove(replica))
        self._num_lost += before - len(self._pool.replicas)

    def _entry(self, request: AdmissionRequest) -> Entry:
        now = self._now()
        work = sum(self._work.predict(shape) for shape in request.shapes)
        return Entry(
            key=request.key,
            cost=len(request.shapes),
            priority=request.priority,
            deadline=now + request.timeout_s,
            arrived=now,
            owner=request.api_key_name,
            work=work,
            service_s=self.load.service_s(work),
            resumed=request.resumed,
            is_spare=request.is_spare,
        )

    async def _wait(self, entry: Entry, admitted: asyncio.Future[Admission]) -> Admission:
        patience_s = entry.deadline - entry.arrived
        if not entry.resumed:
            patience_s = min(patience_s, self._queue_timeout_s)
        await asyncio.wait({admitted}, timeout=patience_s)
        if admitted.done():
            return admitted.result()
        absence = await self.absence()
        if patience_s < entry.deadline - entry.arrived:
            self._queue.refused["queue_timeout"] += 1
            raise DeadlineExceededError(
                f"The request waited {patience_s:g} s for its turn, which is the server's queue_timeout_s; "
                f"try again later.{absence}",
                "queue_timeout_s",
            )
        self._queue.refused["deadline"] += 1
        raise DeadlineExceededError(f"The request's time passed while it waited for its turn.{absence}", "timeout_ms")

    def _wake(self, keys: Sequence[str]) -> None:
        """Place the requests that may start and tell their callers."""
        for key in keys:
            request = self._requests[key]
            shares = [Share(shape.family, self._work.predict(shape)) for shape in request.shapes]
            now = self._now()
            replicas = self._pool.assign(key, shares, now)
            waited_s = now - self._queue.running[key].entry.arrived
            if (admitted := self._admitted.get(key)) is not None and not admitted.done():
                self._num_admitted += 1
                admitted.set_result(Admission(replicas, self.load.pressure, waited_s))

    def _forget(self, key: str, positions: Counter[str] | None = None) -> None:
        now = self._now()
        self._pool.finish(key, now, positions)
        work = None if positions is None else float(positions.total())
        self._wake(self._queue.leave(key, now, work))

    def _lose(self, lost: Counter[str]) -> None:
        for key, count in lost.items():
            self._queue.lose(key, count)
        self._resize()

    def _resize(self) -> None:
        self._queue.capacity = self._pool.capacity
        self._wake(self._queue.start(self._now()))

    async def _watch(self) -> None:
        while True:
            try:
                live = await self._fleet.live()
            except LacunaError as error:
                logger.warning("the replicas cannot be asked: %s", error)
            else:
                self._num_lost += len(self._pool.replicas.keys() - set(live))
                self._lose(self._pool.set_live(live, self._now()))
            self._expire()
            await asyncio.sleep(WATCH_S if self._pool.replicas else WATCH_FAST_S)

    def _expire(self) -> None:
        now = self._now()
        for key in self._queue.expire(now, LEASE_GRACE_S):
            self._num_expired += 1
            self._requests.pop(key, None)
            self._pool.finish(key, now)
        self._wake(self._queue.start(now))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
