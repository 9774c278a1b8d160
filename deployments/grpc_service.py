"""The gRPC answers of the ingress, without Serve's routing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2

from deployments import grpc_api
from deployments.config import AppConfig
from deployments.errors import describe
from deployments.service import GenerationService, add_usage
from engine.errors import ModelNotFoundError
from engine.outputs import Usage
from protos import generation_pb2 as pb

SERVICE_NAME = "lacuna.v1.Generation"
WATCH_PERIOD_S = 2.0


class RpcContext(Protocol):
    """What is used of Serve's gRPC context."""

    def set_code(self, code: grpc.StatusCode) -> None: ...

    def set_details(self, details: str) -> None: ...


class RpcFailedError(Exception):
    """Ends a stream whose status has been set; Serve sends exactly that status."""


class GrpcApi:
    """One method per RPC. A failure sets the call's status, so that Serve sends neither traceback nor host names.

    An answer at once is then an empty message, which gRPC does not send: Serve would log a raised error as a failure of
    the replica. A stream has to raise, because Serve reads its status with chunks and errors only.
    """

    def __init__(self, service: GenerationService, config: AppConfig) -> None:
        self._service = service
        self._config = config

    async def generate(self, request: pb.GenerateRequest, context: RpcContext) -> pb.GenerateResponse:
        try:
            job = grpc_api.job_of(request, self._config, stream=False)
            return grpc_api.response_of(job, await self._service.complete(job))
        except Exception as error:  # noqa: BLE001 - becomes the call's status
            fail(context, error, request.request_id)
            return pb.GenerateResponse()

    async def generate_stream(
        self, request: pb.GenerateRequest, context: RpcContext
    ) -> AsyncGenerator[pb.GenerateChunk]:
        usages: dict[int, Usage] = {}
        try:
            job = grpc_api.job_of(request, self._config, stream=True)
            stream = self._service.stream(job)
            async with aclosing(stream):
                async for item in stream:
                    usages[item.index] = item.increment.output.usage
                    if (chunk := grpc_api.chunk_of(job, item)) is not None:
                        yield chunk
        except Exception as error:  # noqa: BLE001
            fail(context, error, request.request_id)
            raise RpcFailedError("the status of the call is set") from None
        ordered = [usage for _, usage in sorted(usages.items())]
        yield grpc_api.usage_chunk(job, add_usage(ordered, job.num_choices))

    async def list_models(self, context: RpcContext) -> pb.ListModelsResponse:
        try:
            cards = await asyncio.gather(*(self._service.card(model) for model in self._service.model_ids))
        except Exception as error:  # noqa: BLE001
            fail(context, error, "")
            return pb.ListModelsResponse()
        default = self._config.default_model_id
        return pb.ListModelsResponse(models=[grpc_api.model_of(card, is_default=card.id == default) for card in cards])

    async def list_strategies(
        self, request: pb.ListStrategiesRequest, context: RpcContext
    ) -> pb.ListStrategiesResponse:
        model = request.model or self._config.default_model_id
        try:
            parts = await self._service.strategies(model)
        except Exception as error:  # noqa: BLE001
            fail(context, error, "")
            return pb.ListStrategiesResponse()
        return pb.ListStrategiesResponse(model=model, strategies=[grpc_api.strategy_of(part) for part in parts])

    async def check(self, service: str, context: RpcContext) -> health_pb2.HealthCheckResponse:
        """grpc.health.v1: "" and this service's name stand for all models, a model's id for that model."""
        try:
            return health_pb2.HealthCheckResponse(status=await self._status(service))
        except Exception as error:  # noqa: BLE001
            fail(context, error, "")
            return health_pb2.HealthCheckResponse()

    async def watch(self, service: str) -> AsyncGenerator[health_pb2.HealthCheckResponse]:
        """The state now and whenever it changes, until the client goes."""
        last: int | None = None
        while True:
            try:
                status = await self._status(service)
            except ModelNotFoundError:
                status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if status != last:
                last = status
                yield health_pb2.HealthCheckResponse(status=status)
            await asyncio.sleep(WATCH_PERIOD_S)

    async def _status(self, service: str) -> int:
        models = self._service.model_ids if service in ("", SERVICE_NAME) else (service,)
        healthy = await asyncio.gather(*(self._service.healthy(model) for model in models))
        response = health_pb2.HealthCheckResponse
        return response.SERVING if all(healthy) else response.NOT_SERVING


def fail(context: RpcContext, error: Exception, request_id: str) -> None:
    """Set the status of the call."""
    reply = describe(error, request_id or "without an id")
    context.set_code(reply.row.grpc_code)
    context.set_details(reply.grpc_details())
