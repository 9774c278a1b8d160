"""``lacuna doctor``: whether this machine or a cluster can serve what the settings ask for."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

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
from deployments.cli.serve import application_settings
from engine.errors import ConfigError

DEFAULT_WIDTH = 120


def doctor(
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
        settings = application_settings(config, model, set_, (min_replicas, max_replicas), (tp, ep))
        subject = Subject(config=settings, options=options)
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
