"""deployments/app.py and launch.py: the graph that is deployed, without starting Ray."""

from __future__ import annotations

import socket

import pytest

from cluster.placement import GroupPlacement
from deployments.app import build_app, deployment_name
from deployments.config import AppConfig
from deployments.launch import check_divisions, check_port
from engine.errors import ConfigError


def test_unknown_settings_are_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="unknown 'modells'; allowed are: models"):
        build_app({"modells": "x"})


def test_the_application_has_one_engine_per_model() -> None:
    app = build_app({"models": "a=/x,b/c=/y"})
    config, router, engines = app._bound_deployment.init_args
    assert sorted(engines) == ["a", "b/c"]
    assert engines["b/c"]._bound_deployment.name == "EngineReplica-b--c" == deployment_name("b/c")
    placement = GroupPlacement(world_size=1, num_cpus=0.5)
    placements = {"a": placement, "b/c": placement}
    assert router._bound_deployment.init_args == (config, {"a": 20, "b/c": 20}, placements, engines)


def test_capacity_counts_slots_of_a_replica() -> None:
    model = {"id": "a", "path": "/x", "num_replicas": 3, "engine": {"max_num_seqs": 2}}
    app = build_app({"models": [model], "lookahead": 1})
    _, router, engines = app._bound_deployment.init_args
    assert router._bound_deployment.init_args[1] == {"a": 3}
    assert engines["a"]._bound_deployment.num_replicas == 3


def test_autoscaling_becomes_serves_bounds_and_delays() -> None:
    model = {"id": "a", "path": "/x", "autoscaling": {"min_replicas": 0, "max_replicas": 3, "upscale_delay_s": 7}}
    app = build_app({"models": [model, {"id": "b", "path": "/y"}]})
    _, router, engines = app._bound_deployment.init_args
    scaling = engines["a"]._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (0, 1, 3)
    assert (scaling.upscale_delay_s, scaling.downscale_to_zero_delay_s) == (7, 900)
    assert engines["b"]._bound_deployment._deployment_config.autoscaling_config is None
    assert router._bound_deployment._deployment_config.autoscaling_config.look_back_period_s == 20


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"expert_parallel_size": 2}, "model lacuna-tiny-sdar: expert_parallel_size 2: .* has no experts"),
        ({"tensor_parallel_size": 3}, "model lacuna-tiny-sdar: tensor_parallel_size 3 does not divide"),
    ],
)
def test_models_that_cannot_be_divided_like_that_are_named(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_divisions(AppConfig.parse({"models": [{"id": "lacuna-tiny-sdar", "engine": sizes}]}))
    check_divisions(AppConfig.parse({"models": [{"id": "elsewhere", "path": "/nowhere", "engine": sizes}]}))


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} is in use.*--grpc-port"):
            check_port(port, "--grpc-port")
    check_port(port, "--grpc-port")


def test_a_sharded_model_has_a_placement_group_per_replica() -> None:
    engine = {"tensor_parallel_size": 2, "expert_parallel_size": 4}
    model = {"id": "a", "path": "/x", "engine": engine, "num_cpus": 1, "placement_strategy": "PACK"}
    app = build_app({"models": [model, {"id": "b", "path": "/y"}]})
    _, _, engines = app._bound_deployment.init_args
    config = engines["a"]._bound_deployment._replica_config
    assert config.placement_group_bundles == [{"CPU": 1}] * 4
    assert config.placement_group_strategy == "PACK"
    assert engines["b"]._bound_deployment._replica_config.placement_group_bundles is None
