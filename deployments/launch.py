"""Starting the application in this process's Ray: what ``lacuna serve`` and the tests use."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments.config import AppConfig
from deployments.room import StartWatch, check_room, node_resources
from engine.errors import ConfigError

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview

logger = logging.getLogger(__name__)

APP_NAME = "lacuna"
DEPLOY_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where the application listens. Serve's gRPC port binds to every interface, without TLS, whatever ``host`` is.

    ``ray_address`` "local" starts a Ray of its own that ends with this process; "auto" joins a running cluster.
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 9000
    ray_address: str = "local"
    log_to_driver: bool = False


def check_port(port: int, option: str) -> None:
    """ConfigError when something listens already; otherwise two servers would share the port's connections."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((address, port)) == 0:
                raise ConfigError(f"port {port} is in use; choose another with {option}", option)


def check_divisions(config: AppConfig) -> None:
    """ConfigError when a checkpoint that is on this machine cannot be divided as its model's settings say."""
    from engine.models.checkpoint import open_checkpoint
    from engine.models.division import check_division

    for model in config.models:
        engine = model.engine_config()
        if engine.layout.world_size == 1 or not model.checkpoint().is_dir():
            continue
        try:
            check_division(open_checkpoint(model.checkpoint(), engine).spec, engine.layout)
        except ConfigError as error:
            raise ConfigError(f"model {model.id}: {error.message}", error.param) from error


@contextmanager
def serving(
    config: AppConfig, options: ServerOptions, announce: Callable[[str], None] = logger.warning
) -> Iterator[None]:
    """The application, ready to answer, until the block ends. ``announce`` is told what the start waits for.

    ConfigError when a Ray of its own, which cannot grow, has no room for the replicas.
    """
    import ray
    from ray import serve

    from deployments.app import GRPC_SERVICER_FUNCTIONS

    check_divisions(config)

    own_cluster = not ray.is_initialized()
    is_local = options.ray_address == "local"
    if own_cluster:
        ray.init(
            address=options.ray_address,
            include_dashboard=False if is_local else None,
            log_to_driver=options.log_to_driver,
            logging_level=logging.WARNING,
            # Ray starts workers at niceness 15: a busy machine would starve proxy and engines
            _system_config={"worker_niceness": 0} if is_local else None,
        )
    try:
        if own_cluster and is_local:
            check_room(config, node_resources())
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": options.host, "port": options.http_port},
            grpc_options={
                "port": options.grpc_port,
                "grpc_servicer_functions": list(GRPC_SERVICER_FUNCTIONS),
            },
            logging_config=config.logging.serve_options() | {"enable_access_log": True},
        )
        with StartWatch(config, APP_NAME, announce):
            _start(config, own_cluster=own_cluster)
        yield
    finally:
        if own_cluster:
            serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()
        else:
            serve.delete(APP_NAME)


def _start(config: AppConfig, *, own_cluster: bool) -> None:
    from ray import serve

    from deployments.app import build_app

    if not config.autoscales:
        try:
            serve.run(build_app(config), name=APP_NAME, route_prefix="/")
        except RuntimeError as error:
            status = _status(APP_NAME)
            raise ConfigError(
                f"the application could not be deployed: {error if status is None else status.message}"
            ) from error
        return
    if not own_cluster and (others := set(serve.status().applications) - {APP_NAME}):
        raise ConfigError(
            f"the cluster serves {', '.join(sorted(others))} too, which deploying an autoscaled application "
            "would end; use `serve deploy` with a file that lists all applications",
            "autoscaling",
        )
    deploy(config, APP_NAME, "/")


def application_config(config: AppConfig, name: str, route_prefix: str) -> dict[str, object]:
    """The application as Serve's configuration file describes it."""
    return {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": "deployments.app:build_app",
        "autoscaling_policy": {"policy_function": "deployments.autoscaling:router_policy"},
        "args": config.model_dump(mode="json"),
    }


def deploy(config: AppConfig, name: str, route_prefix: str) -> None:
    """Start the application with its autoscaling policy, and wait until it runs; ConfigError when it does not.

    Serve takes such a policy from a configuration only, not from ``serve.run``. Applications that were deployed in
    this way before, by whomever, end.
    """
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ApplicationStatus, ServeDeploySchema

    schema = ServeDeploySchema.model_validate({"applications": [application_config(config, name, route_prefix)]})
    client = _get_global_client()
    assert client is not None, "Serve has been started"
    client.deploy_apps(schema)
    while (status := _status(name)) is None or status.status is not ApplicationStatus.RUNNING:
        if status is not None and status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            serve.delete(name)
            raise ConfigError(f"the application could not be deployed: {status.message}")
        time.sleep(DEPLOY_POLL_S)
    client.wait_for_proxies_serving(wait_for_applications_running=True)


def _status(name: str) -> ApplicationStatusOverview | None:
    from ray import serve

    return serve.status().applications.get(name)
