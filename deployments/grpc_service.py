"""The gRPC answers of the ingress, without Serve's routing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from grpc_health.v1 import health_pb2

from deployments import grpc_api
from deployments.api_keys import KeyRing
from deployments.callers import Caller
from deployments.config import AppConfig
from deployments.experiments.side_by_side import side_by_side
from deployments.grpc_call import Rpc, RpcContext, RpcGate
from deployments.metered import MeteredService
from deployments.service import add_usage
from deployments.telemetry.rpc import TracedRpcGate
from deployments.telemetry.tracing import OFF as TRACING_OFF
from deployments.telemetry.tracing import Tracing
from engine.errors import ModelNotFoundError
from engine.outputs import Usage
from protos import generation_pb2 as pb

SERVICE_NAME = "lacuna.v1.Generation"
WATCH_PERIOD_S = 2.0


class GrpcApi:
    """One method per RPC. Who may call, and how failures are told, is the gate's business."""

    def __init__(
        self, service: MeteredService, config: AppConfig, keys: KeyRing, tracing: Tracing = TRACING_OFF
    ) -> None:
        self._service = service
        self._config = config
        self._gate = _gate(service, config, keys, tracing)
        self._open_health = "/health" in config.open_paths

    async def generate(self, request: pb.GenerateRequest, context: RpcContext) -> pb.GenerateResponse:
        async def answer(caller: Caller) -> pb.GenerateResponse:
            job = grpc_api.job_of(request, self._config, caller, stream=False)
            return grpc_api.response_of(job, await self._service.complete(job))

        rpc = Rpc(name="Generate", model=self._served(request.model))
        return await self._gate.unary(rpc, request, context, answer, pb.GenerateResponse)

    async def generate_stream(
        self, request: pb.GenerateRequest, context: RpcContext
    ) -> AsyncGenerator[pb.GenerateChunk]:
        rpc = Rpc(name="GenerateStream", model=self._served(request.model))
        chunks = self._gate.stream(rpc, request, context, lambda caller: self._chunks(request, caller))
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def infill(self, request: pb.InfillRequest, context: RpcContext) -> pb.InfillResponse:
        async def answer(caller: Caller) -> pb.InfillResponse:
            job = grpc_api.infill_job_of(request, self._config, caller)
            (completion,) = await self._service.complete(job)
            return grpc_api.infill_response_of(job, request, completion)

        rpc = Rpc(name="Infill", model=self._served(request.model))
        return await self._gate.unary(rpc, request, context, answer, pb.InfillResponse)

    async def compare(self, request: pb.CompareRequest, context: RpcContext) -> pb.CompareResponse:
        async def answer(caller: Caller) -> pb.CompareResponse:
            job = grpc_api.compare_job_of(request, self._config, caller)
            return grpc_api.compare_response_of(job, await side_by_side(self._service, job))

        rpc = Rpc(name="Compare", model=self._served(request.model))
        return await self._gate.unary(rpc, request, context, answer, pb.CompareResponse)

    async def list_models(self, request: pb.ListModelsRequest, context: RpcContext) -> pb.ListModelsResponse:
        async def answer(_: Caller) -> pb.ListModelsResponse:
            cards = await asyncio.gather(*(self._service.card(model) for model in self._service.model_ids))
            default = self._config.default_model_id
            return pb.ListModelsResponse(
                models=[grpc_api.model_of(card, is_default=card.id == default) for card in cards]
            )

        return await self._gate.unary(Rpc(name="ListModels"), request, context, answer, pb.ListModelsResponse)

    async def list_strategies(
        self, request: pb.ListStrategiesRequest, context: RpcContext
    ) -> pb.ListStrategiesResponse:
        async def answer(_: Caller) -> pb.ListStrategiesResponse:
            model = request.model or self._config.default_model_id
            parts = await self._service.strategies(model)
            return pb.ListStrategiesResponse(model=model, strategies=[grpc_api.strategy_of(part) for part in parts])

        rpc = Rpc(name="ListStrategies", model=self._served(request.model))
        return await self._gate.unary(rpc, request, context, answer, pb.ListStrategiesResponse)

    async def check(
        self, request: health_pb2.HealthCheckRequest, context: RpcContext
    ) -> health_pb2.HealthCheckResponse:
        """grpc.health.v1: "" and this service's name stand for all models, a model's id for that model."""

        async def answer(_: Caller) -> health_pb2.HealthCheckResponse:
            return health_pb2.HealthCheckResponse(status=await self._status(request.service))

        rpc = Rpc(name="Check", is_open=self._open_health)
        return await self._gate.unary(rpc, request, context, answer, health_pb2.HealthCheckResponse)

    async def watch(
        self, request: health_pb2.HealthCheckRequest, context: RpcContext
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse]:
        """The state now and whenever it changes, until the client goes."""
        rpc = Rpc(name="Watch", is_open=self._open_health)
        states = self._gate.stream(rpc, request, context, lambda _: self._states(request.service))
        async with aclosing(states):
            async for state in states:
                yield state

    async def _chunks(self, request: pb.GenerateRequest, caller: Caller) -> AsyncGenerator[pb.GenerateChunk]:
        job = grpc_api.job_of(request, self._config, caller, stream=True)
        usages: dict[int, Usage] = {}
        stream = self._service.stream(job)
        async with aclosing(stream):
            async for item in stream:
                usages[item.index] = item.increment.output.usage
                if (chunk := grpc_api.chunk_of(job, item)) is not None:
                    yield chunk
        ordered = [usage for _, usage in sorted(usages.items())]
        yield grpc_api.usage_chunk(job, add_usage(ordered, job.num_choices))

    async def _states(self, service: str) -> AsyncGenerator[health_pb2.HealthCheckResponse]:
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

    def _served(self, model: str) -> str:
        """The model's name for the meter: only those of served models become labels."""
        name = model or self._config.default_model_id
        return name if name in self._service.model_ids else ""


def _gate(service: MeteredService, config: AppConfig, keys: KeyRing, tracing: Tracing) -> RpcGate:
    limit, log_prompts = config.grpc_max_message_bytes, config.logging.log_prompts
    if not tracing.is_on:
        return RpcGate(keys, limit, service.metrics, log_prompts=log_prompts)
    tracer = tracing.tracer()
    return TracedRpcGate(tracer, SERVICE_NAME, keys, limit, service.metrics, log_prompts=log_prompts)
