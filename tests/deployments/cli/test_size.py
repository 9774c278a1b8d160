"""deployments/cli/size.py."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from deployments.cli import app
from engine.errors import ConfigError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["models", "size", "lacuna-tiny-llada", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_every_combination_has_a_line() -> None:
    sizings = json.loads(run("--slots", "1, 8", "--dtype", "float32,bfloat16", "--tp", "1,2", "--json"))
    assert len(sizings) == 8
    by_settings = {(one["dtype"], one["tp"], one["max_num_seqs"]): one["plan"] for one in sizings}
    wide, narrow = by_settings["float32", 1, 8], by_settings["bfloat16", 2, 8]
    assert wide["kv_bytes"] == 4 * narrow["kv_bytes"]
    spare_page = 256 * wide["kv_position_bytes"]  # of padding rows in recorded steps
    assert wide["kv_bytes"] == 8 * wide["kv_slot_bytes"] + spare_page
    assert wide["total_bytes"] > wide["kv_bytes"] + wide["weight_bytes"]


def test_the_defaults_are_the_checkpoints() -> None:
    (sizing,) = json.loads(run("--slots", "1", "--json"))
    assert (sizing["dtype"], sizing["max_model_len"]) == ("bfloat16", 512)


def test_the_table_says_what_fits() -> None:
    text = run("--slots", "1,64", "--memory", "0.2")
    assert text.isascii()
    assert "yes" in text.splitlines()[-3]
    assert "no" in text.splitlines()[-2]
    assert "fits" not in run("--slots", "1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--slots", "0"), "--slots"),
        (("--tp", "1,,2"), "--tp"),
        (("--tp", "3"), "tensor_parallel_size 3"),
        (("--device", "tpu"), "--device"),
        (("--dtype", "int8"), "dtype"),
    ],
)
def test_wrong_settings_are_named(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(*arguments)
