"""Options that come in groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from deployments.cli.option_groups import with_option_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A group with an option that must be given."""

    width: Annotated[int, typer.Option(help="In columns.")]
    height: Annotated[int, typer.Option(help="In rows.", min=1)] = 2


def test_the_fields_of_a_group_are_options_of_the_command() -> None:
    received: list[tuple[str, Size, bool]] = []

    @with_option_groups
    def draw(
        name: Annotated[str, typer.Argument()], *, size: Size, filled: Annotated[bool, typer.Option()] = False
    ) -> None:
        """Draw something."""
        received.append((name, size, filled))

    app = typer.Typer()
    app.command()(draw)
    result = CliRunner().invoke(app, ["x", "--width", "7", "--filled"])
    assert result.exit_code == 0, result.output
    assert received == [("x", Size(width=7, height=2), True)]
    assert CliRunner().invoke(app, ["x"]).exit_code == 2
    assert CliRunner().invoke(app, ["x", "--width", "7", "--height", "0"]).exit_code == 2


def test_two_options_of_one_name_are_a_mistake_of_the_command() -> None:
    def draw(width: Annotated[str, typer.Option()], *, size: Size) -> None:
        """Draw something."""

    with pytest.raises(TypeError, match="several options of the name width"):
        with_option_groups(draw)
