"""The ``lacuna`` command. Commands import what they need when they run: ``--help`` loads neither torch nor Ray."""

from __future__ import annotations

import sys

import typer

from deployments.cli.adapt import adapt
from deployments.cli.bench import bench
from deployments.cli.compare import compare
from deployments.cli.distill import distill
from deployments.cli.distill_report import distill_report
from deployments.cli.doctor import doctor
from deployments.cli.evaluate import evaluate
from deployments.cli.experiment import experiment
from deployments.cli.generate import generate
from deployments.cli.keys import keys
from deployments.cli.models import models
from deployments.cli.serve import serve
from deployments.cli.strategies import strategies
from deployments.cli.train import train
from engine.errors import EngineDeadError, LacunaError

USER_ERROR = 2
FAILURE = 1

app = typer.Typer(
    name="lacuna",
    help="Serve, try, evaluate and train diffusion language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
KNOBS = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("generate", context_settings=KNOBS)(generate)
app.command("serve")(serve)
app.command("doctor")(doctor)
app.command("eval", context_settings=KNOBS)(evaluate)
app.command("compare")(compare)
app.add_typer(experiment, name="experiment")
app.command("train")(train)
app.command("adapt")(adapt)
app.command("distill")(distill)
app.command("distill-report")(distill_report)
app.command("bench", context_settings=KNOBS | {"help_option_names": []})(bench)
app.add_typer(models, name="models")
app.add_typer(keys, name="keys")
app.command("strategies")(strategies)


def main() -> None:
    """Run a command. A mistake of the user is one line on stderr and exit status 2."""
    try:
        app()
    except EngineDeadError as error:
        _end(error, FAILURE)
    except LacunaError as error:
        _end(error, USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)


def _end(error: LacunaError, status: int) -> None:
    print(f"lacuna: {error}", file=sys.stderr)
    sys.exit(status)
