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

from deployments.config import AppConfig, ModelConfig, deployment_name
from deployments.ingress import Ingress
from deployments.replica import EngineReplica
from deployments.router import Router

GRPC_SERVICER_FUNCTIONS = (
    "deployments.grpc_wiring.add_generation_servicer",
    "deployments.grpc_wiring.add_health_servicer",
    "deployments.grpc_reflection.add_reflection_servicer",
)
MANY_REQUESTS = 10_000
"""For deployments that only pass requests on: the router's own queue is the limit."""


def build_app(args: AppConfig | Mapping[str, object]) -> Application:
    """Ingress -> Router and one EngineReplica deployment per model; ConfigError lists wrong settings."""
    config = AppConfig.parse(args)
    engines = {model.id: _engine(model, config) for model in config.models}
    capacities = {model.id: _capacity(model, config) for model in config.models}
    placements = {model.id: model.placement() for model in config.models}
    router = serve.deployment(name="Router")(Router).options(
        max_ongoing_requests=MANY_REQUESTS,
        autoscaling_config=_router_metrics(config),
        ray_actor_options={"num_cpus": 0},
        **_lifecycle(config),
    )
    ingress = serve.deployment(name="Ingress")(Ingress).options(
        num_replicas=config.ingress_replicas,
        max_ongoing_requests=MANY_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        **_lifecycle(config),
    )
    return ingress.bind(config, router.bind(config, capacities, placements, engines), engines)


def _engine(model: ModelConfig, config: AppConfig) -> Application:
    scaling: dict[str, Any] = {"num_replicas": model.num_replicas}
    if model.autoscaling is not None:
        scaling = {"autoscaling_config": model.autoscaling.serve_options()}
    deployment = serve.deployment(name=deployment_name(model.id))(EngineReplica).options(
        # room for questions about the model beside the sequences that the router admits
        max_ongoing_requests=max(2 * _capacity(model, config), config.max_sequences) + 16,
        ray_actor_options={"num_cpus": model.num_cpus, "num_gpus": model.num_gpus},
        request_router_config={"request_router_class": "deployments.request_router:ChosenReplicaRouter"},
        **_placement(model),
        **scaling,
        **_lifecycle(config),
    )
    return deployment.bind(model, config.experiments_of(model.id), config.logging, config.telemetry)


def _placement(model: ModelConfig) -> dict[str, Any]:
    """A placement group per replica where it has several ranks. It lives and dies with the replica."""
    placement = model.placement()
    if placement.world_size == 1:
        return {}
    return {"placement_group_bundles": placement.bundles, "placement_group_strategy": placement.strategy}


def _capacity(model: ModelConfig, config: AppConfig) -> int:
    """Sequences that one replica is given at once."""
    return model.engine_config().max_num_seqs + config.lookahead


def _router_metrics(config: AppConfig) -> dict[str, Any]:
    """Without an autoscaling configuration Serve does not read the router's statistics. It reads them as often as
    the variable RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S says (10 s)."""
    periods = [model.autoscaling.look_back_s for model in config.models if model.autoscaling]
    return {"min_replicas": 1, "max_replicas": 1, "look_back_period_s": min(periods, default=20.0)}


def _lifecycle(config: AppConfig) -> dict[str, Any]:
    return {
        "graceful_shutdown_timeout_s": config.graceful_shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": config.graceful_shutdown_wait_loop_s,
        "health_check_period_s": config.health_check_period_s,
        "logging_config": config.logging.serve_options(),
    }
