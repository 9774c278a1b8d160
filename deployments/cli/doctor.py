"""``lacuna doctor``: whether this machine or a cluster can serve what the settings ask for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.serve import read_settings, scaled
from engine.errors import ConfigError

if TYPE_CHECKING:
    from deployments.config import AppConfig

DEFAULT_WIDTH = 120


def doctor(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Folder, `id=folder` or embedded id; may be repeated.", show_default="embedded models"
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with the application's settings.", show_default="none")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting as key=value; may be repeated.")] = None,
    min_replicas: Annotated[int | None, typer.Option(help="As for `lacuna serve`.", min=0)] = None,
    max_replicas: Annotated[int | None, typer.Option(help="As for `lacuna serve`.", min=1)] = None,
    host: Annotated[str, typer.Option(help="Address of the HTTP port.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTP port.", min=1, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port.", min=1, max=65535)] = 9000,
    ray_address: Annotated[
        str, typer.Option(help="local: this machine alone; auto or host:port: look at a running cluster too.")
    ] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check versions, devices, ports, checkpoints, memory, ledger and cluster, and say what to do.

    Takes what `lacuna serve` takes, starts nothing; exit status 1 when something would keep the service from running.
    """
    from rich.console import Console

    from deployments.doctor.examination import examine, fails, render
    from deployments.doctor.finding import Subject
    from deployments.launch import ServerOptions

    options = ServerOptions(host=host, http_port=port, grpc_port=grpc_port, ray_address=ray_address)
    try:
        subject = Subject(config=_settings(config, model, set_, min_replicas, max_replicas), options=options)
    except ConfigError as error:
        subject = Subject(config=None, problem=str(error), options=options)
    findings = examine(subject)
    if as_json:
        print(json.dumps({"ok": not fails(findings), "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        console = Console()
        print(render(findings, console.width if console.is_terminal else DEFAULT_WIDTH, colour=console.is_terminal))
    if fails(findings):
        raise typer.Exit(1)


def _settings(
    path: Path | None,
    models: list[str] | None,
    settings: list[str] | None,
    min_replicas: int | None,
    max_replicas: int | None,
) -> AppConfig:
    from deployments.config import AppConfig

    return scaled(AppConfig.parse(read_settings(path, models or [], settings or [])), min_replicas, max_replicas)
