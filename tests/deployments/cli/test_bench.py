"""``lacuna bench`` finds both sets of measurements."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from deployments.cli import app


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["serve", "--help"], "--slo-ms"),
        (["queue", "--help"], "--queued"),
        (["--help"], "interference"),
    ],
)
def test_help_is_that_of_the_measurement(words: list[str], text: str) -> None:
    result = CliRunner().invoke(app, ["bench", *words])
    assert result.exit_code == 0
    assert text in result.output


@pytest.mark.parametrize("words", [[], ["speed"], ["serve", "--sweep"], ["queue", "--shape", "gpt"]])
def test_mistakes_of_the_user_end_with_2(words: list[str]) -> None:
    assert CliRunner().invoke(app, ["bench", *words]).exit_code == 2


def test_every_measurement_is_named() -> None:
    """What the two commands know, ``lacuna bench`` knows too."""
    from deployments.cli.bench import ENGINE, SERVICE

    listed = [CliRunner().invoke(app, ["bench", name, "--help"]) for name in (*SERVICE, *ENGINE)]
    assert all(result.exit_code == 0 for result in listed)
