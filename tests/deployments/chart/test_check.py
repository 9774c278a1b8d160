"""deployments/chart/check.py: values are checked with the application's own rules before they are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.chart.__main__ import main
from deployments.chart.check import check_values, merged
from deployments.chart.schema import CHART
from engine.errors import ConfigError

EXAMPLES = sorted((CHART.parent / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_right(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--values", str(path)]) == 0
    assert "served models: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("app: {default_model: nobody}", "app: default_model: 'nobody' is not served"),
        ("app: {models: [{id: big}]}", "app.models.0: model 'big' needs a path"),
        ("app: {models: [{id: lacuna-tiny-sdar, engine: {max_num_seqs: 0}}]}", "max_num_seqs"),
        ("tls: {enable: true}", "tls.enable: Extra inputs are not permitted"),
        ("worker_groups: []", "worker_groups"),
        ("- a", "must hold values by name"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_wrong_values_are_named(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        check_values([path])
    assert message in str(refused.value)
    assert main(["--values", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_values_are_merged_as_helm_does() -> None:
    values = {"a": {"b": 1, "c": [1, 2]}, "d": 2}
    assert merged(values, {"a": {"c": [3]}, "d": None}) == {"a": {"b": 1, "c": [3]}}
    assert values == {"a": {"b": 1, "c": [1, 2]}, "d": 2}
