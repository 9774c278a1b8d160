"""The Router deployment: it decides who starts and where; data flow from the ingress to the engines past it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from cluster.placement import GroupPlacement
from deployments.admission import QueueLimits
from deployments.autoscaling import metric_name
from deployments.config import AppConfig, deployment_name
from deployments.handles import EngineFleet
from deployments.identity import own_replica_id
from deployments.logs.setup import set_up_replica
from deployments.messages import Admission, AdmissionRequest, SequenceOutcome
from deployments.metrics.router_samples import router_samples
from deployments.metrics.spec import Sample
from deployments.model_router import Fleet, ModelRouter
from deployments.telemetry.admissions import traced_admission
from deployments.telemetry.tracing import start_tracing
from engine.errors import LacunaError, ModelNotFoundError


class Router:
    """Owns one ModelRouter per model.

    Errors are returned, not raised: they concern the client, and a raised one would be logged by Serve as a failure
    of this replica.
    """

    def __init__(
        self,
        config: AppConfig,
        capacities: Mapping[str, int],
        placements: Mapping[str, GroupPlacement],
        engines: Mapping[str, DeploymentHandle[Any]],
    ) -> None:
        """``capacities``: sequences that one replica of a model is given at once; ``placements``: what it reserves."""
        set_up_replica(config.logging, "router")
        self._tracing = start_tracing(config.telemetry, "router", own_replica_id)
        self._tracer = self._tracing.tracer()
        fleets = {model: EngineFleet(handle, placements[model]) for model, handle in engines.items()}
        self._models = model_routers(config, capacities, fleets)

    async def admit(self, request: AdmissionRequest) -> Admission | LacunaError:
        """Wait for a place and a replica. Cancelling the call gives the place up."""
        try:
            return await traced_admission(self._tracer, request, self._admit)
        except LacunaError as error:
            return error

    async def release(
        self, model: str, key: str, outcomes: Sequence[SequenceOutcome] = (), lost: Sequence[str] = ()
    ) -> None:
        """Give a place back, or leave the queue; ``lost`` replicas did not answer. Releasing twice, or what was
        never admitted, does nothing."""
        if (router := self._models.get(model)) is not None:
            for replica in lost:
                router.lost(replica)
            router.release(key, outcomes)

    async def asleep(self, model: str) -> bool:
        """Whether the model has no replica because nobody asks for it."""
        router = self._models[model]
        router.watch()
        return router.asleep

    async def absence(self, model: str) -> str:
        """Why no replica of the model runs; nothing while one does."""
        return await self._models[model].absence()

    async def metrics(self) -> list[Sample]:
        """The samples of all models."""
        for router in self._models.values():
            router.watch()
        return [
            sample.labelled(model=model)
            for model, router in self._models.items()
            for sample in router_samples(router.report)
        ]

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the application's autoscaling policy and operators read; Serve asks for it regularly."""
        loads = {}
        for name, router in self._models.items():
            router.watch()
            loads[name] = router.load
        wanted = {
            metric_name(deployment_name(name)): router.wanted_replicas
            for name, router in self._models.items()
            if router.wanted_replicas is not None
        }
        return {
            "queue_depth": float(sum(load.queued for load in loads.values())),
            "in_flight": float(sum(load.in_flight for load in loads.values())),
            "predicted_work_s": sum(load.work_s for load in loads.values()),
            "positions_per_s": sum(load.positions_per_s for load in loads.values()),
            **{name: float(count) for name, count in wanted.items()},
        }

    def __del__(self) -> None:
        self._tracing.close()

    async def _admit(self, request: AdmissionRequest) -> Admission:
        model = self._models.get(request.model)
        if model is None:
            raise ModelNotFoundError(f"The model {request.model!r} is not served.", "model")
        return await model.admit(request)


def model_routers(
    config: AppConfig, capacities: Mapping[str, int], fleets: Mapping[str, Fleet]
) -> dict[str, ModelRouter]:
    """The routers of all served models."""
    limits = QueueLimits(
        max_depth=config.max_queue_depth, owner_share=config.max_key_share, max_wait_s=config.max_overtaken_s
    )
    return {
        model.id: ModelRouter(
            fleets[model.id],
            capacities[model.id],
            limits,
            config.queue_timeout_s,
            None if model.autoscaling is None else model.autoscaling.targets(),
        )
        for model in config.models
    }
