"""``lacuna models``: what is embedded, and what a checkpoint holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.size import size
from deployments.config import SHIPPED_BASES, SHIPPED_MODELS, resolve_checkpoint

models = typer.Typer(help="The embedded models, and what a checkpoint holds.", invoke_without_command=True)


@models.callback()
def overview(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@models.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """List the embedded models and where they lie; those to adapt (lacuna adapt) cannot be served themselves."""
    found = {name: resolve_checkpoint(name) for name in SHIPPED_MODELS + SHIPPED_BASES}
    if as_json:
        print(json.dumps({name: str(path) for name, path in found.items()}))
        return
    width = max(map(len, found))
    for name, path in found.items():
        role = "to adapt" if name in SHIPPED_BASES else "to serve"
        print(f"{name:{width}}  {role}  {path if path.is_dir() else 'not in this installation'}")


@models.command("inspect")
def inspect(
    path: Annotated[str, typer.Argument(help="Folder of a checkpoint, or the id of an embedded model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what a checkpoint is, what it needs and whether it can be served; exit status 1 when it cannot."""
    from engine.models.inspect import inspect_checkpoint

    report = inspect_checkpoint(resolve_checkpoint(path))
    print(json.dumps(report.to_dict()) if as_json else report.to_text())
    if not report.supported:
        raise typer.Exit(1)


@models.command("synthesize")
def synthesize(
    folder: Annotated[Path, typer.Argument(help="A new folder for the checkpoint.")],
    experts: Annotated[int, typer.Option(help="Experts of each layer.", min=2, max=1024)] = 8,
    seed: Annotated[int, typer.Option(help="Same seed, same weights.")] = 0,
) -> None:
    """Write a small mixture-of-experts checkpoint with random weights, to try several ranks without a download."""
    from engine.bench.synthetic import synthesize_moe

    spec = synthesize_moe(folder, resolve_checkpoint("lacuna-tiny-llada"), experts, seed)
    print(f"{folder}: {spec.architecture}, {spec.num_layers} layers, {experts} experts; it answers with noise")
    print(f"Try: lacuna serve --model {folder} --tp 2 --ep 2")


models.command("size")(size)
