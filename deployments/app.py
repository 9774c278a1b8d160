"""``build_app``: the Serve application.

    serve run deployments.app:build_app                          # HTTP only: `serve run` cannot be told gRPC services
    serve run deployments.app:build_app models=mine=/path/to/checkpoint max_queue_depth=64
    serve run deployments/serve.yaml                             # HTTP and gRPC
    lacuna serve                                                 # HTTP and gRPC

For ``serve deploy`` and the rest of Serve's own tools use ``deployments/serve.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.config import AppConfig, ModelConfig
from deployments.ingress import Ingress
from deployments.replica import EngineReplica
from deployments.router import Router

GRPC_SERVICER_FUNCTIONS = (
    "deployments.grpc_wiring.add_generation_servicer",
    "deployments.grpc_wiring.add_health_servicer",
)
MANY_REQUESTS = 10_000
"""For deployments that only pass requests on: the router's own queue is the limit."""


def build_app(args: AppConfig | Mapping[str, object]) -> Application:
    """Ingress -> Router and one EngineReplica deployment per model; ConfigError lists wrong settings."""
    config = AppConfig.parse(args)
    engines = {model.id: _engine(model, config) for model in config.models}
    capacities = {model.id: _capacity(model, config) * model.num_replicas for model in config.models}
    router = serve.deployment(name="Router")(Router).options(
        max_ongoing_requests=MANY_REQUESTS,
        autoscaling_config={"min_replicas": 1, "max_replicas": 1},  # without one Serve does not read its statistics
        ray_actor_options={"num_cpus": 0},
        **_lifecycle(config),
    )
    ingress = serve.deployment(name="Ingress")(Ingress).options(
        num_replicas=config.ingress_replicas,
        max_ongoing_requests=MANY_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        **_lifecycle(config),
    )
    return ingress.bind(config, router.bind(capacities, config.max_queue_depth), engines)


def deployment_name(model: str) -> str:
    """Serve's name of a model's engine deployment."""
    return f"EngineReplica-{model.replace('/', '--')}"


def _engine(model: ModelConfig, config: AppConfig) -> Application:
    deployment = serve.deployment(name=deployment_name(model.id))(EngineReplica).options(
        num_replicas=model.num_replicas,
        # room for questions about the model beside the sequences that the router admits
        max_ongoing_requests=max(2 * _capacity(model, config), config.max_sequences) + 16,
        ray_actor_options={"num_cpus": model.num_cpus, "num_gpus": model.num_gpus},
        **_lifecycle(config),
    )
    return deployment.bind(model)


def _capacity(model: ModelConfig, config: AppConfig) -> int:
    """Sequences that one replica is given at once."""
    return model.engine_config().max_num_seqs + config.lookahead


def _lifecycle(config: AppConfig) -> dict[str, Any]:
    return {
        "graceful_shutdown_timeout_s": config.graceful_shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": config.graceful_shutdown_wait_loop_s,
        "health_check_period_s": config.health_check_period_s,
    }
