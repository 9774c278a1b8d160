"""The Router deployment: admission. It decides who starts; data flow from the ingress to the engines past it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from deployments.admission import AdmissionQueue, Entry
from deployments.messages import AdmissionRequest
from engine.errors import DeadlineExceededError, LacunaError, ModelNotFoundError

logger = logging.getLogger(__name__)

LEASE_GRACE_S = 5.0
LEASE_CHECK_S = 1.0


class Router:
    """Owns one admission queue per model.

    A request is admitted once and must be released once; a lease whose request is past its deadline is taken back,
    so an ingress that dies holds no place for ever. Errors are returned, not raised: they concern the client, and a
    raised one would be logged by Serve as a failure of this replica.
    """

    def __init__(self, capacities: Mapping[str, int], max_queue_depth: int) -> None:
        self._queues = {model: AdmissionQueue(capacity, max_queue_depth) for model, capacity in capacities.items()}
        self._admitted: dict[str, asyncio.Future[None]] = {}

    async def admit(self, request: AdmissionRequest) -> LacunaError | None:
        """Wait for a place; None once the request may start. Cancelling the call gives the place up."""
        try:
            await self._admit(request)
        except LacunaError as error:
            return error
        return None

    async def release(self, model: str, key: str) -> None:
        """Give a place back, or leave the queue. Releasing twice, or what was never admitted, does nothing."""
        if (queue := self._queues.get(model)) is not None:
            self._wake(queue.leave(key, self._now()))

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What an autoscaling policy of the application may read."""
        return {
            "queue_depth": float(sum(len(queue.waiting) for queue in self._queues.values())),
            "in_flight": float(sum(queue.in_flight for queue in self._queues.values())),
        }

    async def _admit(self, request: AdmissionRequest) -> None:
        queue = self._queues.get(request.model)
        if queue is None:
            raise ModelNotFoundError(f"The model {request.model!r} is not served.", "model")
        now = self._now()
        entry = Entry(
            key=request.key,
            cost=request.cost,
            priority=request.priority,
            deadline=now + request.timeout_s,
            arrived=now,
        )
        self._wake(queue.expire(now, LEASE_GRACE_S))
        if queue.submit(entry):
            return
        admitted = self._admitted[entry.key] = asyncio.get_running_loop().create_future()
        try:
            await self._wait(queue, entry, admitted)
        except BaseException:
            self._wake(queue.leave(entry.key, self._now()))
            raise
        finally:
            del self._admitted[entry.key]

    async def _wait(self, queue: AdmissionQueue, entry: Entry, admitted: asyncio.Future[None]) -> None:
        while not admitted.done():
            now = self._now()
            if now >= entry.deadline:
                raise DeadlineExceededError("The request's time passed while it waited for its turn.", "timeout_ms")
            await asyncio.wait({admitted}, timeout=min(LEASE_CHECK_S, entry.deadline - now))
            self._wake(queue.expire(self._now(), LEASE_GRACE_S))

    def _wake(self, keys: list[str]) -> None:
        for key in keys:
            if (admitted := self._admitted.get(key)) is not None and not admitted.done():
                admitted.set_result(None)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
