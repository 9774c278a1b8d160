"""deployments/chart: the generated files of helm/lacuna are up to date, and say what the code says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deployments.chart.__main__ import main
from deployments.chart.schema import CHART, generated, stale, values_schema, write
from deployments.config import AppConfig
from engine.config import EngineConfig
from engine.errors import ConfigError


@pytest.fixture(scope="module")
def schema() -> Any:
    return values_schema()


def test_the_generated_files_are_up_to_date() -> None:
    assert stale() == [], "run python -m deployments.chart --write"


def test_a_file_that_is_not_what_the_code_says_is_found_and_rewritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CHART, tmp_path / "lacuna")
    target = tmp_path / "lacuna" / "values.schema.json"
    target.write_text("{}")
    (tmp_path / "lacuna" / "files" / "defaults.json").unlink()
    assert len(stale(tmp_path / "lacuna")) == 2
    assert write(tmp_path / "lacuna") == [target, tmp_path / "lacuna" / "files" / "defaults.json"]
    assert target.read_text() == generated()["values.schema.json"]
    monkeypatch.setattr("deployments.chart.__main__.stale", lambda: [target])
    assert main(["--check"]) == 1
    assert "values.schema.json is stale: run python -m deployments.chart --write" in capsys.readouterr().out


def test_there_must_be_a_chart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no chart"):
        stale(tmp_path)


def test_the_applications_settings_are_appconfig(schema: Any) -> None:
    assert schema["properties"]["app"]["$ref"] == "#/$defs/AppConfig"
    assert set(schema["$defs"]["AppConfig"]["properties"]) == set(AppConfig.model_fields)
    assert set(schema["$defs"]["EngineConfig"]["properties"]) == set(EngineConfig.__dataclass_fields__)
    assert schema["$defs"]["ModelConfig"]["properties"]["engine"] == {"$ref": "#/$defs/EngineConfig"}


def test_every_value_is_described_and_unknown_ones_are_refused(schema: Any) -> None:
    for name, group in {"values": schema, **schema["$defs"]}.items():
        assert group["additionalProperties"] is False, name
        undescribed = [key for key, value in group["properties"].items() if not described(value, schema)]
        assert undescribed == [], name


def described(value: Any, schema: Any) -> bool:
    """A reference is described by what it names."""
    target = value.get("$ref", "").removeprefix("#/$defs/")
    return bool(value.get("description") or (target and schema["$defs"][target].get("description")))


def test_references_stay_inside_the_file(schema: Any) -> None:
    text = json.dumps(schema)
    references = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert references
    assert {reference.removeprefix("#/$defs/") for reference in references} <= set(schema["$defs"])


def test_only_kubernetes_own_types_and_strategies_are_open(schema: Any) -> None:
    open_ones = set(open_objects(schema, ""))
    kubernetes = {"affinity", "podSelector", "namespaceSelector", "ipBlock", "volume", "valueFrom", "items"}
    kubernetes |= {"podSecurityContext", "securityContext", "global"}
    assert open_ones <= kubernetes | {"strategy", "default_strategy", "options"}


def open_objects(node: Any, name: str) -> list[str]:
    """Names of properties that hold anything."""
    if isinstance(node, list):
        return [found for item in node for found in open_objects(item, name)]
    if not isinstance(node, dict):
        return []
    found = [name] if node.get("type") == "object" and node.get("additionalProperties", True) is True else []
    keep = {"anyOf": name, "properties": name, "$defs": name}
    return found + [one for key, value in node.items() for one in open_objects(value, keep.get(key, key))]
