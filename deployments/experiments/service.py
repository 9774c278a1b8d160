"""The generation service with experiments: assigns requests to arms, records outcomes, runs shadows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from deployments.experiments.controller import ExperimentController
from deployments.experiments.observer import JobObserver
from deployments.experiments.outcome import Assignment
from deployments.experiments.shadow import ShadowRunner
from deployments.messages import Admission, AdmissionRequest, Job
from deployments.service import EngineClient, GenerationService, JobIncrement, RouterClient
from deployments.strategy_choice import Arm, parse_wish
from deployments.telemetry.jobs import JobSpans
from engine.errors import InvalidRequestError

ARM = "arm"
"""The option of a request's strategy that asks for an arm."""

PATIENCE_S = 0.02
"""A live request that waits longer for its place ends the shadows of its model."""


class ExperimentService(GenerationService):
    """Owns the shadows; ``experiments`` is the caller's."""

    def __init__(
        self,
        router: RouterClient,
        engines: Mapping[str, EngineClient],
        experiments: ExperimentController,
        spans: JobSpans | None = None,
    ) -> None:
        self._assigned: dict[str, Assignment] = {}
        super().__init__(router, engines, _ArmOf(self._assigned), spans)
        self.experiments = experiments
        self.shadows = ShadowRunner(self._run, experiments.record)
        self._observers: dict[str, JobObserver] = {}

    def assignment(self, job: Job) -> Assignment | None:
        """The job's arm, the same at every call; InvalidRequestError: it asks for one that it cannot have."""
        if job.is_comparison:
            return None
        options = dict(job.calls[0].strategy)
        arm = options.pop(ARM, "")
        if not isinstance(arm, str):
            raise InvalidRequestError("arm: the name of an arm is a text.", "strategy.arm")
        return self.experiments.choose(
            job.model,
            user=job.user or job.calls[0].session_id or "",
            request_key=job.key,
            api_key_name=job.api_key_name,
            arm=arm,
            has_strategy=parse_wish(options).explicit,
        )

    async def stream(self, job: Job) -> AsyncGenerator[JobIncrement]:
        assignment = self.assignment(job)
        if assignment is None:
            stream = super().stream(job)
            async with aclosing(stream):
                async for item in stream:
                    yield item
            return
        observer = JobObserver(job, assignment)
        error: BaseException | None = None
        self._assigned[job.key] = assignment
        try:
            stream = self._run(_without_wish(job), observer)
            async with aclosing(stream):
                async for item in stream:
                    observer.see(item)
                    yield item
        except BaseException as caught:
            error = caught
            raise
        finally:
            del self._assigned[job.key]
            self._finish(job, assignment, observer, error)

    async def close(self) -> None:
        """End the shadows and write what the ledger has not yet."""
        await self.shadows.close()
        await asyncio.to_thread(self.experiments.close)

    def _finish(self, job: Job, assignment: Assignment, observer: JobObserver, error: BaseException | None) -> None:
        """A request that is wrong says nothing about its arm."""
        if isinstance(error, InvalidRequestError):
            return
        outcome = observer.outcome(error)
        self.experiments.record(outcome)
        if not outcome.error and (shadow := self.experiments.shadow_of(assignment)) is not None:
            self.shadows.start(job, shadow)

    async def _run(self, job: Job, observer: JobObserver) -> AsyncGenerator[JobIncrement]:
        """The plain stream, observed by its key."""
        self._observers[job.key] = observer
        stream = super().stream(job)
        try:
            async with aclosing(stream):
                async for item in stream:
                    yield item
        finally:
            del self._observers[job.key]

    async def _ask_router(self, job: Job, request: AdmissionRequest) -> Admission:
        waiting = None
        if not job.is_spare:
            waiting = asyncio.get_running_loop().call_later(PATIENCE_S, self.shadows.drop, job.model)
        try:
            admission = await super()._ask_router(job, request)
        finally:
            if waiting is not None:
                waiting.cancel()
        if (observer := self._observers.get(job.key)) is not None:
            observer.admitted()
        return admission


@dataclass(frozen=True, slots=True)
class _ArmOf:
    """The service's strategy chooser: the arms of running jobs by their keys."""

    assigned: Mapping[str, Assignment]

    def choose(self, job: Job) -> Arm | None:
        assignment = self.assigned.get(job.key)
        return None if assignment is None else Arm(f"{assignment.experiment}/{assignment.arm}", assignment.strategy)


def _without_wish(job: Job) -> Job:
    """The job whose wish for an arm has been granted."""
    calls = (
        replace(call, strategy={name: value for name, value in call.strategy.items() if name != ARM})
        for call in job.calls
    )
    return replace(job, calls=tuple(calls))
