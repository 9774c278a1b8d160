"""Files of the chart that follow from the code: the schema of its values, and the defaults its templates need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import deployments
from deployments.chart.pods import WorkerGroup
from deployments.chart.values import ChartValues
from deployments.config import EMBEDDED_MODELS, AppConfig, ModelConfig
from engine.config import EngineConfig
from engine.errors import ConfigError

CHART = Path(deployments.__file__).parents[1] / "helm" / "lacuna"
DRAFT = "http://json-schema.org/draft-07/schema#"
"""Helm before 3.18 knows no later one."""


def values_schema() -> dict[str, Any]:
    """JSON schema of values.yaml; an engine's settings are in it too, which AppConfig itself leaves to the engine."""
    schema = ChartValues.model_json_schema(by_alias=True)
    engine = TypeAdapter(EngineConfig).json_schema()
    definitions = schema["$defs"] | engine.pop("$defs", {}) | {"EngineConfig": engine}
    definitions["ModelConfig"]["properties"]["engine"] = {"$ref": "#/$defs/EngineConfig"}
    rest = {key: value for key, value in schema.items() if key != "$defs"}
    return {"$schema": DRAFT, **_without_titles(rest), "$defs": _definitions(definitions)}


def defaults() -> dict[str, Any]:
    """What the templates have to know of settings that nobody gave: Helm fills neither lists nor ``app``."""
    return {
        "app": AppConfig().model_dump(mode="json", exclude={"models"}),
        "model": ModelConfig.model_validate({"id": EMBEDDED_MODELS[0]}).model_dump(mode="json"),
        "engine": TypeAdapter(EngineConfig).dump_python(EngineConfig(), mode="json"),
        "workerGroup": WorkerGroup(name="cpu").model_dump(mode="json"),
    }


def generated() -> dict[str, str]:
    """The generated files by their path in the chart."""
    return {
        "values.schema.json": json.dumps(values_schema(), indent=1, ensure_ascii=False) + "\n",
        "files/defaults.json": json.dumps(defaults(), indent=1) + "\n",
    }


def write(chart: Path = CHART) -> list[Path]:
    """Bring the files up to date; those that changed."""
    changed = stale(chart)
    for path in changed:
        path.parent.mkdir(exist_ok=True)
        path.write_text(generated()[path.relative_to(chart).as_posix()], encoding="utf-8")
    return changed


def stale(chart: Path = CHART) -> list[Path]:
    """Files that are not what the code says. ConfigError: there is no chart."""
    if not (chart / "Chart.yaml").is_file():
        raise ConfigError(f"{chart} holds no chart; the command belongs to a checkout of the project", "chart")
    texts = {chart / name: text for name, text in generated().items()}
    return [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def _definitions(definitions: dict[str, Any]) -> dict[str, Any]:
    return {name: _without_titles(definitions[name]) for name in sorted(definitions)}


def _without_titles(node: Any) -> Any:
    """Pydantic's titles repeat the names. A property that is called so stays."""
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _without_titles(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
