"""The service's clients over Serve's deployment handles. The only place that knows how Ray's errors look."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from typing import Any, NoReturn, TypeVar, cast

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from deployments.messages import AdmissionRequest, GenerateCall, Increment, ModelCard, StrategyPart
from engine.errors import EngineDeadError, LacunaError, OverloadedError, RequestAbortedError

T = TypeVar("T")


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

    async def admit(self, request: AdmissionRequest) -> None:
        response = self._handle.admit.remote(request)
        try:
            refusal = await _call(response)
        except BaseException:
            response.cancel()  # type: ignore[no-untyped-call]
            raise
        if refusal is not None:
            raise refusal

    async def release(self, model: str, key: str) -> None:
        await _call(self._handle.release.remote(model, key))


class EngineHandle:
    """EngineClient over Serve; the handle picks the replica."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def generate(self, call: GenerateCall) -> AsyncGenerator[Increment]:
        responses = cast("DeploymentResponseGenerator[Any]", self._streaming.generate.remote(call))
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

    async def card(self) -> ModelCard:
        return cast("ModelCard", await _call(self._handle.card.remote()))

    async def strategies(self) -> list[StrategyPart]:
        return cast("list[StrategyPart]", await _call(self._handle.strategies.remote()))

    async def health(self) -> None:
        await _call(self._handle.health.remote())
