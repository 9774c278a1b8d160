"""The service's clients over Serve's deployment handles. The only place that knows how Ray's errors look."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, NoReturn, TypeVar, cast

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from cluster.placement import GroupPlacement
from deployments.messages import (
    Admission,
    AdmissionRequest,
    GenerateCall,
    Increment,
    ModelCard,
    SequenceOutcome,
    StrategyPart,
)
from deployments.metrics.spec import Sample
from deployments.room import node_resources
from engine.errors import EngineDeadError, LacunaError, OverloadedError, RequestAbortedError

T = TypeVar("T")

FLEET_TIMEOUT_S = 5.0
MAX_KEPT_HANDLES = 256


def translate(error: Exception) -> Exception:
    """Ray's errors as ours: a lost replica is EngineDeadError, the replica's own exception is itself."""
    if isinstance(error, LacunaError) and not isinstance(error, RayTaskError):
        return error
    if isinstance(error, RequestCancelledError):
        return RequestAbortedError("The request was cancelled.")
    if isinstance(error, BackPressureError):
        return OverloadedError("The server has too many requests; try again later.")
    if isinstance(error, DeploymentUnavailableError):
        return EngineDeadError("The model is not available at the moment.")
    if isinstance(error, RayTaskError):
        cause = error.cause
        return cause if isinstance(cause, Exception) and cause is not error else error
    if isinstance(error, RayError):
        return EngineDeadError("The engine stopped while it worked on the request.")
    return error


async def _call(response: Awaitable[T]) -> T:
    try:
        return await response
    except Exception as error:  # noqa: BLE001 - raised again, translated
        _reraise(error)


def _reraise(error: Exception) -> NoReturn:
    ours = translate(error)
    if ours is error:
        raise error
    raise ours from error


class RouterHandle:
    """RouterClient over Serve."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def admit(self, request: AdmissionRequest) -> Admission:
        response = self._handle.admit.remote(request)
        try:
            answer = await _call(response)
        except BaseException:
            response.cancel()  # type: ignore[no-untyped-call]
            raise
        if isinstance(answer, LacunaError):
            raise answer
        return cast("Admission", answer)

    async def release(
        self, model: str, key: str, outcomes: Sequence[SequenceOutcome] = (), lost: Sequence[str] = ()
    ) -> None:
        await _call(self._handle.release.remote(model, key, outcomes, lost))

    async def asleep(self, model: str) -> bool:
        return bool(await _call(self._handle.asleep.remote(model)))

    async def absence(self, model: str) -> str:
        return str(await _call(self._handle.absence.remote(model)))

    async def metrics(self) -> Sequence[Sequence[Sample]]:
        return [await _call(self._handle.metrics.remote())]


async def ask_all(handle: DeploymentHandle[Any], method: str) -> Sequence[object]:
    """The answers of all replicas of a deployment, an exception where one has failed; none where there are no
    replicas. EngineDeadError when that cannot be known now."""
    try:
        return await handle.broadcast(method).results_async(timeout_s=FLEET_TIMEOUT_S, return_exceptions=True)
    except DeploymentUnavailableError:
        return ()
    except (RayError, TimeoutError) as error:
        raise EngineDeadError(f"the replicas of {handle.deployment_name} do not answer: {error}") from error


async def metrics_of_all(handle: DeploymentHandle[Any]) -> Sequence[Sequence[Sample]]:
    """The samples of all replicas of a deployment; a replica that is just going has none."""
    return [answer for answer in await ask_all(handle, "metrics") if isinstance(answer, list)]


class EngineFleet:
    """The router's Fleet over Serve: asks every replica of a deployment."""

    def __init__(self, handle: DeploymentHandle[Any], placement: GroupPlacement) -> None:
        self._handle = handle
        self._placement = placement

    async def live(self) -> Sequence[str]:
        """Replicas that do not answer in time, or say that they are not well, do not count."""
        return [answer for answer in await ask_all(self._handle, "live") if isinstance(answer, str)]

    async def absence(self) -> str:
        """What the cluster's nodes lack for a replica, else what Serve says of the deployment."""
        return await asyncio.to_thread(self._absence)

    def _absence(self) -> str:
        if shortage := self._placement.shortage(node_resources()):
            return shortage
        application = serve.status().applications.get(self._handle.app_name)
        status = None if application is None else application.deployments.get(self._handle.deployment_name)
        return "" if status is None else status.message


class EngineHandle:
    """EngineClient over Serve; calls that name a replica go there (see request_router.py)."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._streaming = handle.options(stream=True)
        self._by_replica: OrderedDict[str, DeploymentHandle[Any]] = OrderedDict()

    async def generate(self, call: GenerateCall, replica: str = "") -> AsyncGenerator[Increment]:
        responses = cast("DeploymentResponseGenerator[Any]", self._to(replica).generate.remote(call))
        finished = False
        try:
            async for item in responses:
                if isinstance(item, LacunaError):
                    finished = True
                    raise item
                finished = item.output.finished
                yield item
        except Exception as error:  # noqa: BLE001 - raised again, translated
            _reraise(error)
        finally:
            if not finished:
                responses.cancel()  # type: ignore[no-untyped-call]

    def _to(self, replica: str) -> DeploymentHandle[Any]:
        """A handle whose calls go to ``replica``; making one takes longer than keeping it."""
        if not replica:
            return self._streaming
        if replica not in self._by_replica:
            self._by_replica[replica] = self._streaming.options(multiplexed_model_id=replica)
            if len(self._by_replica) > MAX_KEPT_HANDLES:
                self._by_replica.popitem(last=False)
        return self._by_replica[replica]

    async def card(self) -> ModelCard:
        return cast("ModelCard", await _call(self._handle.card.remote()))

    async def strategies(self) -> list[StrategyPart]:
        return cast("list[StrategyPart]", await _call(self._handle.strategies.remote()))

    async def health(self) -> None:
        await _call(self._handle.health.remote())

    async def metrics(self) -> Sequence[Sequence[Sample]]:
        return await metrics_of_all(self._handle)


class IngressFleet:
    """All ingress replicas of the application, this one too."""

    def __init__(self, deployment: str, application: str) -> None:
        self._names = deployment, application
        self._handle: DeploymentHandle[Any] | None = None

    async def metrics(self) -> Sequence[Sequence[Sample]]:
        if self._handle is None:
            self._handle = serve.get_deployment_handle(*self._names)
        return await metrics_of_all(self._handle)
