"""``lacuna bench``: the measurements of the service and of the engine under one name."""

from __future__ import annotations

import typer

SERVICE = ("serve", "overhead")
ENGINE = ("throughput", "queue", "interference", "selection", "ranks", "goldens")
USAGE = f"""Usage: lacuna bench COMMAND [OPTIONS]; COMMAND --help says more.

  of a service    {", ".join(SERVICE)}   (python -m deployments.bench)
  of the engine   {", ".join(ENGINE)}   (python -m engine.bench)"""


def bench(context: typer.Context) -> None:
    """Measure a service under load (serve), or the engine (throughput, queue, interference, ...)."""
    words = context.args
    command = words[0] if words else ""
    if command in SERVICE:
        from deployments.bench.__main__ import main
    elif command in ENGINE:
        from engine.bench.__main__ import main
    else:
        print(USAGE)
        raise typer.Exit(0 if command in ("-h", "--help") else 2)
    raise typer.Exit(main(words))
