"""The options that every training command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from deployments.cli.training_options import TrainingOptions, run_training, training_command
from engine.errors import ConfigError


def test_a_training_command_has_its_own_options_and_the_shared_ones(tmp_path: Path) -> None:
    received: list[tuple[str, int, TrainingOptions]] = []

    @training_command
    def command(
        name: Annotated[str, typer.Argument()],
        options: TrainingOptions,
        size: Annotated[int, typer.Option(help="A size.")] = 3,
    ) -> None:
        """Train something."""
        received.append((name, size, options))

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, ["x", "--output", str(tmp_path), "--steps", "7", "--size", "4"])
    assert result.exit_code == 0, result.output
    assert received == [("x", 4, TrainingOptions(output=tmp_path, steps=7))]
    assert CliRunner().invoke(app, ["x"]).exit_code == 2


def test_a_mistake_is_found_before_a_model_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--minutes"):
        run_training(TrainingOptions(output=tmp_path, minutes=-1.0), lambda: pytest.fail("made the job"))
