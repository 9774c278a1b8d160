"""``lacuna adapt``: its options as they reach the adaptation, and conversion alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli import app
from engine.errors import LacunaError
from engine.models.checkpoint import open_checkpoint


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["adapt", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_converting_alone_writes_a_checkpoint_with_the_new_block_length(tmp_path: Path) -> None:
    output = tmp_path / "b8"
    shown = run("--from", "lacuna-tiny-sdar", "--block-length", "8", "--convert-only", "--output", str(output))
    assert shown.strip() == str(output)
    assert open_checkpoint(output).spec.block_length == 8


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--curriculum", "4,x"], "--curriculum: '4,x' is not a list of numbers"),
        (["--curriculum", "4"], "must grow up to 8"),
        (["--stage", "sft,rl"], "stage must be cpt, sft or cpt,sft; got 'sft,rl'"),
        (["--stage-shares", "0.5,0.5"], "stage_shares must be 1 numbers"),
        (["--data", "/nowhere.jsonl"], "/nowhere.jsonl cannot be read: No such file"),
        (["--router-aux", "0.1"], "no experts to route to"),
        (["--minutes", "-1"], "--minutes must be above 0"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(tmp_path: Path, arguments: list[str], reason: str) -> None:
    start = ["--from", "lacuna-tiny-sdar", "--block-length", "8", "--output", str(tmp_path / "model")]
    with pytest.raises(LacunaError, match=reason):
        run(*start, *arguments)
    assert not (tmp_path / "model").exists()
