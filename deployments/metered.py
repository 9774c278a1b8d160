"""The service with a meter: every generation request leaves its numbers in the ingress' metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from deployments.experiments.controller import ExperimentController
from deployments.experiments.service import ExperimentService
from deployments.logs.generation import GenerationNotes
from deployments.messages import Admission, AdmissionRequest, Job
from deployments.metrics.collector import Fleet, MetricsCollector, NoPeers
from deployments.metrics.service_metrics import ServiceMetrics
from deployments.metrics.spec import Sample
from deployments.service import EngineClient, JobIncrement, RouterClient, add_usage
from deployments.telemetry.jobs import JobSpans
from engine.errors import InvalidRequestError
from engine.outputs import Usage


class MeteredService(ExperimentService):
    """Measures :meth:`stream`, through which every request goes; shadow runs do not.

    ``collector`` answers scrapes; ``peers`` are the application's other ingress replicas.
    """

    def __init__(
        self,
        router: RouterClient,
        engines: Mapping[str, EngineClient],
        experiments: ExperimentController,
        metrics: ServiceMetrics,
        peers: Fleet | None = None,
        spans: JobSpans | None = None,
    ) -> None:
        super().__init__(router, engines, experiments, spans)
        self.metrics = metrics
        metrics.begin(self.model_ids)
        self.collector = MetricsCollector(self.own_samples, router, engines, peers or NoPeers())

    def own_samples(self) -> list[Sample]:
        """What this ingress measures."""
        return self.metrics.samples(self.shadows.stats, self.experiments.ledger_stats())

    async def stream(self, job: Job) -> AsyncGenerator[JobIncrement]:
        if job.model not in self.model_ids:  # before the client's text becomes a label
            raise self.unknown_model(job.model)
        started_s = time.monotonic()
        first_s = 0.0
        usages: dict[int, Usage] = {}
        arm = self._arm(job)
        notes = GenerationNotes(job, arm)
        try:
            with self.metrics.in_flight(job.model):
                stream = super().stream(job)
                async with aclosing(stream):
                    async for item in stream:
                        if not usages:
                            first_s = time.monotonic() - started_s
                        usages[item.index] = item.increment.output.usage
                        notes.increment(item.index, item.increment)
                        yield item
        except BaseException as error:
            self.metrics.failed(job.model, arm, error)
            raise
        else:
            self.metrics.finished(job.model, arm, _total(job, usages), time.monotonic() - started_s)
        finally:
            if usages:
                total = _total(job, usages)
                notes.cost(total)
                self.metrics.cost(job.model, arm, total, first_s)

    async def _ask_router(self, job: Job, request: AdmissionRequest) -> Admission:
        admission = await super()._ask_router(job, request)
        if request.resumed:
            self.metrics.replayed(job.model)
        elif not job.is_spare:
            self.metrics.admitted(job.model, admission.waited_s)
        return admission

    def _arm(self, job: Job) -> str:
        """EXPERIMENT/ARM of the job; "" outside experiments, and where the stream will refuse its wish."""
        try:
            assignment = self.assignment(job)
        except InvalidRequestError:
            return ""
        return "" if assignment is None else f"{assignment.experiment}/{assignment.arm}"


def _total(job: Job, usages: Mapping[int, Usage]) -> Usage:
    """The sum over the sequences that have begun; a prompt counts once for the choices that share it."""
    choices = job.num_choices if len(usages) == len(job.calls) else 1
    return add_usage([usage for _, usage in sorted(usages.items())], choices)
