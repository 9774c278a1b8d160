"""The Ingress deployment: OpenAI's HTTP API and the gRPC services in one class, over the same service.

Serve finds gRPC methods by the name of the RPC, whatever its service: ``Check`` and ``Watch`` belong to
``grpc.health.v1.Health``, the others to ``lacuna.v1.Generation``. The HTTP application is built in the replica, when
the deployment's arguments are known (``__serve_build_asgi_app__`` is Serve's name for that).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi import FastAPI
from grpc_health.v1 import health_pb2
from ray import serve
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle

from deployments.api_keys import KeyRing, load_keys
from deployments.config import AppConfig
from deployments.experiments.controller import ExperimentController
from deployments.grpc_service import GrpcApi
from deployments.handles import EngineHandle, IngressFleet, RouterHandle
from deployments.http_app import build_http_app
from deployments.identity import own_replica_id
from deployments.logs.setup import set_up_replica
from deployments.metered import MeteredService
from deployments.metrics.collector import NoPeers
from deployments.metrics.service_metrics import ServiceMetrics
from deployments.metrics.spec import Sample
from deployments.telemetry.jobs import JobSpans
from deployments.telemetry.tracing import start_tracing
from protos import generation_pb2 as pb

logger = logging.getLogger(__name__)


@serve.ingress()
class Ingress:
    """Speaks with clients. Owns no state of requests; several may run beside each other."""

    def __init__(
        self, config: AppConfig, router: DeploymentHandle[Any], engines: Mapping[str, DeploymentHandle[Any]]
    ) -> None:
        set_up_replica(config.logging, "ingress")
        self._config = config
        self._keys = KeyRing(load_keys(config.api_keys))
        if self._keys.is_open:
            logger.warning("no API keys are configured: whoever reaches the ports may use the models")
        self._tracing = start_tracing(config.telemetry, "ingress", own_replica_id)
        clients = {model: EngineHandle(handle) for model, handle in engines.items()}
        context = serve.get_replica_context()
        metrics = ServiceMetrics(own_replica_id())
        spans = JobSpans(self._tracing.tracer(), record_prompts=self._tracing.record_prompts)
        peers = IngressFleet(context.deployment, context.app_name) if config.ingress_replicas > 1 else NoPeers()
        experiments = ExperimentController(config)
        self._service = MeteredService(RouterHandle(router), clients, experiments, metrics, peers, spans)
        self._grpc = GrpcApi(self._service, config, self._keys, self._tracing)

    async def __del__(self) -> None:
        await self._service.close()
        await asyncio.to_thread(self._tracing.close)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_http_app(self._service, self._config, self._keys, self._tracing)

    async def metrics(self) -> list[Sample]:
        """What this replica measures, for the one that was asked for all."""
        return self._service.own_samples()

    async def Generate(self, request: pb.GenerateRequest, grpc_context: RayServegRPCContext) -> pb.GenerateResponse:
        return await self._grpc.generate(request, grpc_context)

    async def GenerateStream(
        self, request: pb.GenerateRequest, grpc_context: RayServegRPCContext
    ) -> AsyncGenerator[pb.GenerateChunk]:
        async for chunk in self._grpc.generate_stream(request, grpc_context):
            yield chunk

    async def Infill(self, request: pb.InfillRequest, grpc_context: RayServegRPCContext) -> pb.InfillResponse:
        return await self._grpc.infill(request, grpc_context)

    async def Compare(self, request: pb.CompareRequest, grpc_context: RayServegRPCContext) -> pb.CompareResponse:
        return await self._grpc.compare(request, grpc_context)

    async def ListModels(
        self, request: pb.ListModelsRequest, grpc_context: RayServegRPCContext
    ) -> pb.ListModelsResponse:
        return await self._grpc.list_models(request, grpc_context)

    async def ListStrategies(
        self, request: pb.ListStrategiesRequest, grpc_context: RayServegRPCContext
    ) -> pb.ListStrategiesResponse:
        return await self._grpc.list_strategies(request, grpc_context)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, grpc_context: RayServegRPCContext
    ) -> health_pb2.HealthCheckResponse:
        return await self._grpc.check(request, grpc_context)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, grpc_context: RayServegRPCContext
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse]:
        async for response in self._grpc.watch(request, grpc_context):
            yield response
