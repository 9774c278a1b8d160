"""The published tables: README shows what the result files hold, and every strategy in them can still be asked for."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import engine
from engine.models.checkpoint import open_checkpoint
from engine.presets.named import newest
from engine.presets.table import strategies_of
from engine.strategy import StrategyLimits, parse_strategy
from engine.strategy_text import parse_strategy_text

ENGINE = Path(engine.__file__).parent
RESULTS = sorted((ENGINE / "evaluation" / "results").glob("*.csv"), key=lambda path: path.stem)
README = (ENGINE.parent / "README.md").read_text(encoding="utf-8")


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_the_models_that_differ_in_how_they_decode_have_results() -> None:
    assert [path.stem for path in RESULTS] == ["lacuna-tiny-llada", "lacuna-tiny-sdar", "lacuna-tiny-sdar-b8"]


@pytest.mark.parametrize("path", RESULTS, ids=lambda one: one.stem)
def test_every_strategy_can_be_asked_for(path: Path) -> None:
    spec = open_checkpoint(ENGINE / "checkpoints" / path.stem).spec
    limits = StrategyLimits(spec.attention, spec.block_length, 64, spec.vocab_size, strategies_of(spec.preset_family))
    strategies = [parse_strategy(parse_strategy_text(row["strategy"]), limits) for row in read(path)]
    labels = [one.label for one in newest(strategies_of(spec.preset_family))]
    assert [strategy.preset for strategy in strategies[:3]] == labels


@pytest.mark.parametrize("path", RESULTS, ids=lambda one: one.stem)
def test_the_page_shows_the_numbers_the_command_and_the_picture(path: Path) -> None:
    rows = read(path)
    for row in rows:
        accuracy, nfe, tpf = (float(row[name]) for name in ("accuracy", "nfe", "tokens_per_forward"))
        begins = f"| `{row['strategy']}` | {100 * accuracy:.1f} "
        shown = [line for line in README.splitlines() if line.startswith(begins)]
        assert any(f"| {nfe:.1f} | {tpf:.2f} |" in line for line in shown)
        assert f" -s {row['strategy']}" in README
    assert f"eval --model {path.stem} --count" in README
    assert f"{rows[0]['prompts']} prompts" in README
    assert f"engine/evaluation/results/{path.stem}.svg" in README
    drawn = path.with_suffix(".svg").read_text(encoding="utf-8")
    assert all(row["strategy"] in drawn for row in rows)
