"""deployments/app.py and launch.py: the graph that is deployed, without starting Ray."""

from __future__ import annotations

import socket

import pytest

from deployments.app import build_app, deployment_name
from deployments.launch import check_port
from engine.errors import ConfigError


def test_unknown_settings_are_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="unknown 'modells'; allowed are: models"):
        build_app({"modells": "x"})


def test_the_application_has_one_engine_per_model() -> None:
    app = build_app({"models": "a=/x,b/c=/y"})
    _, router, engines = app._bound_deployment.init_args
    assert sorted(engines) == ["a", "b/c"]
    assert engines["b/c"]._bound_deployment.name == "EngineReplica-b--c" == deployment_name("b/c")
    capacities, depth = router._bound_deployment.init_args
    assert capacities == {"a": 20, "b/c": 20}
    assert depth == 256


def test_capacity_counts_replicas_and_slots() -> None:
    model = {"id": "a", "path": "/x", "num_replicas": 3, "engine": {"max_num_seqs": 2}}
    app = build_app({"models": [model], "lookahead": 1})
    _, router, engines = app._bound_deployment.init_args
    assert router._bound_deployment.init_args[0] == {"a": 9}
    assert engines["a"]._bound_deployment.num_replicas == 3


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} is in use.*--grpc-port"):
            check_port(port, "--grpc-port")
    check_port(port, "--grpc-port")
