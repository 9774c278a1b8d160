"""Shadow runs: another arm's strategy on a request that has been answered. Only ever in spare places."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from deployments.experiments.observer import JobObserver
from deployments.experiments.outcome import Assignment, Outcome
from deployments.messages import Job
from deployments.service import JobIncrement
from engine.errors import LacunaError, OverloadedError

logger = logging.getLogger(__name__)

MAX_SHADOWS = 4
LOWEST_PRIORITY = 2**31 - 1
MAX_SHADOW_S = 120.0


@dataclass(slots=True)
class ShadowStats:
    """``dropped``: not begun, or ended, because live requests needed the place."""

    started: int = 0
    finished: int = 0
    dropped: int = 0


class ShadowRunner:
    """Owns the tasks of running shadows.

    A shadow begins after the live answer is complete, starts only where a place is free at once, and ends when a live
    request of its model has to wait. Nothing that happens to it reaches a client.
    """

    def __init__(
        self, run: Callable[[Job, JobObserver], AsyncGenerator[JobIncrement]], record: Callable[[Outcome], None]
    ) -> None:
        self._run = run
        self._record = record
        self._tasks: dict[asyncio.Task[None], str] = {}
        self.stats = ShadowStats()

    def start(self, job: Job, assignment: Assignment) -> None:
        """Begin in a task with an empty context: Serve would cancel it together with the request that it follows."""
        if len(self._tasks) >= MAX_SHADOWS:
            self.stats.dropped += 1
            return
        self.stats.started += 1
        shadow = shadow_job(job, assignment)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._follow(shadow, assignment), context=contextvars.Context())
        self._tasks[task] = job.model
        task.add_done_callback(self._ended)

    def drop(self, model: str) -> None:
        """A live request of this model waits: end its shadows."""
        for task, running in list(self._tasks.items()):
            if running == model:
                task.cancel()

    async def close(self) -> None:
        """End all."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, job: Job, assignment: Assignment) -> None:
        observer = JobObserver(job, assignment)
        stream = self._run(job, observer)
        try:
            async with aclosing(stream):
                async for item in stream:
                    observer.see(item)
        except OverloadedError:
            self.stats.dropped += 1
        except LacunaError as error:
            self._record(observer.outcome(error))
        else:
            self.stats.finished += 1
            self._record(observer.outcome())

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if task.cancelled():
            self.stats.dropped += 1
        elif (error := task.exception()) is not None:
            logger.warning("a shadow failed", exc_info=error)


def shadow_job(job: Job, assignment: Assignment) -> Job:
    """The same request under the arm's strategy, behind everything else. It keeps its response id for the ledger. What
    the live answer has computed spares it nothing, else it would look cheaper."""
    calls = tuple(
        replace(
            call,
            request_id=f"{call.request_id}-shadow",
            strategy=assignment.strategy,
            stream="final",
            priority=LOWEST_PRIORITY,
            cache_salt=f"{call.cache_salt}/shadow",
            traceparent=None,
            tracestate=None,
        )
        for call in job.calls
    )
    return replace(
        job,
        key=f"{job.key}-shadow",
        calls=calls,
        priority=LOWEST_PRIORITY,
        api_key_name="",  # nobody pays for it
        timeout_s=min(job.timeout_s, MAX_SHADOW_S),
        is_spare=True,
        follows=job.calls[0].traceparent,
    )
