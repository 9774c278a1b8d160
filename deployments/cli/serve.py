"""``lacuna serve``: the whole service on this machine."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.options import (
    ExpertRanks,
    GrpcPort,
    Host,
    HttpPort,
    MaxReplicas,
    MinReplicas,
    RayAddress,
    ServedModels,
    SettingsFile,
    SettingTexts,
    TensorRanks,
)
from engine.errors import ConfigError

if TYPE_CHECKING:
    from deployments.config import AppConfig, ModelConfig
    from deployments.launch import ServerOptions

logger = logging.getLogger(__name__)


def serve(
    model: ServedModels = None,
    config: SettingsFile = None,
    set_: SettingTexts = None,
    min_replicas: MinReplicas = None,
    max_replicas: MaxReplicas = None,
    tp: TensorRanks = None,
    ep: ExpertRanks = None,
    host: Host = "127.0.0.1",
    port: HttpPort = 8000,
    grpc_port: GrpcPort = 9000,
    ray_address: RayAddress = "local",
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the log of every process.")] = False,
) -> None:
    """Serve models over HTTP (OpenAI's API) and gRPC until interrupted."""
    from deployments.launch import ServerOptions, check_port, serving
    from deployments.logs.setup import set_up_command

    app_config = application_settings(config, model, set_, (min_replicas, max_replicas), (tp, ep))
    options = ServerOptions(
        host=host, http_port=port, grpc_port=grpc_port, ray_address=ray_address, log_to_driver=verbose
    )
    for option, number in (("--port", port), ("--grpc-port", grpc_port)):
        check_port(number, option)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    names = ", ".join(served.id for served in app_config.models)
    set_up_command(app_config.logging)
    tell = _teller(app_config)
    tell(f"Starting Ray and {names} (about half a minute) ...")
    with serving(app_config, options, tell):
        tell(next_steps(app_config, options))
        stopped.wait()
        tell("Stopping ...")


def _teller(config: AppConfig) -> Callable[[str], None]:
    """People get text; where logs are read by machines, everything is a line of the log."""
    if config.logging.log_format == "json":
        return logger.info
    return partial(print, flush=True)


def application_settings(
    path: Path | None,
    models: list[str] | None,
    settings: list[str] | None,
    replicas: tuple[int | None, int | None],
    ranks: tuple[int | None, int | None],
) -> AppConfig:
    """The options together; ConfigError says what is wrong. ``replicas`` are bounds, ``ranks`` tensor and expert."""
    from deployments.config import AppConfig

    config = AppConfig.parse(read_settings(path, models or [], settings or []))
    return sharded(scaled(config, *replicas), *ranks)


def read_settings(path: Path | None, models: list[str], settings: list[str]) -> dict[str, object]:
    """Settings of a file, then of the command line."""
    merged: dict[str, Any] = {}
    if path is not None:
        import yaml

        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} cannot be read as YAML: {error}", "config") from error
        if not isinstance(loaded, dict):
            raise ConfigError(f"{path} must hold settings by name", "config")
        merged |= loaded
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set takes key=value, got {setting!r}", "set")
        merged[key] = value
    if models:
        merged["models"] = models
    return merged


def scaled(config: AppConfig, min_replicas: int | None, max_replicas: int | None) -> AppConfig:
    """The settings with these bounds for the replicas of every model."""
    from deployments.config import AppConfig

    bounds = {"min_replicas": min_replicas, "max_replicas": max_replicas}
    given = {name: value for name, value in bounds.items() if value is not None}
    if not given:
        return config
    settings = config.model_dump(exclude_unset=True)
    settings["models"] = [
        model.model_dump(exclude_unset=True) | {"autoscaling": _bounds(model, given)} for model in config.models
    ]
    return AppConfig.parse(settings)


def sharded(config: AppConfig, tensor: int | None, expert: int | None) -> AppConfig:
    """The settings with every model divided over so many ranks."""
    from deployments.config import AppConfig

    sizes = {"tensor_parallel_size": tensor, "expert_parallel_size": expert}
    given = {name: size for name, size in sizes.items() if size is not None}
    if not given:
        return config
    settings = config.model_dump(exclude_unset=True)
    settings["models"] = [
        model.model_dump(exclude_unset=True) | {"engine": model.engine | given} for model in config.models
    ]
    return AppConfig.parse(settings)


def _bounds(model: ModelConfig, given: dict[str, int]) -> dict[str, object]:
    """A model's autoscaling with other bounds. A lower bound alone raises the upper one to itself, at least 1."""
    current = {} if model.autoscaling is None else model.autoscaling.model_dump(exclude_unset=True)
    implied = {"max_replicas": max(given.get("min_replicas", 1), 1)}
    return {"min_replicas": 1} | implied | current | given


def next_steps(config: AppConfig, options: ServerOptions) -> str:
    """What to type now."""
    base = f"http://{options.host}:{options.http_port}"
    key = " -H 'Authorization: Bearer '$LACUNA_KEY" if config.api_keys else ""
    access = "only with an API key" if config.api_keys else "none: whoever reaches the ports may use the models"
    return f"""
Ready: {", ".join(model.id for model in config.models)}
  HTTP   {base}/v1   (OpenAI's API; docs at {base}/docs)
  gRPC   {options.host}:{options.grpc_port}   (lacuna.v1.Generation, health, reflection)
  Keys   {access}

Try:
  curl {base}/v1/chat/completions -H 'Content-Type: application/json'{key} \\
    -d '{{"messages": [{{"role": "user", "content": "What is 17 + 25?"}}], "diffusion": {{"decoder": "threshold"}}}}'

Press Ctrl-C to stop."""
