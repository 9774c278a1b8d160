"""deployments/serve.yaml and helm/lacuna: one configuration, without keys that nobody reads."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from deployments.app import GRPC_SERVICER_FUNCTIONS
from deployments.config import AppConfig

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "lacuna"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def chart_config() -> Any:
    return load(CHART / "values.yaml")["serveConfig"]


def unknown_keys(model: type[BaseModel], data: Any, where: str = "") -> list[str]:
    """Serve's schema ignores keys that it does not know, so typos would pass."""
    found = []
    for key, value in data.items():
        field = model.model_fields.get(key)
        if field is None:
            found.append(f"{where}{key}")
            continue
        for item in value if isinstance(value, list) else [value]:
            inner = field.annotation
            inner = getattr(inner, "__args__", (inner,))[0] if isinstance(item, dict) else None
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += unknown_keys(inner, item, f"{where}{key}.")
    return found


@pytest.mark.parametrize("config", [load(ROOT / "deployments" / "serve.yaml"), chart_config()], ids=["yaml", "helm"])
def test_the_configuration_is_serves_and_ours(config: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.serve.schema import ServeDeploySchema
    ServeDeploySchema.model_validate(config)
    assert unknown_keys(ServeDeploySchema, config) == []
    assert config["grpc_options"]["grpc_servicer_functions"] == list(GRPC_SERVICER_FUNCTIONS)
    (application,) = config["applications"]
    assert application["import_path"] == "deployments.app:build_app"
    AppConfig.parse(application["args"])


def test_chart_and_yaml_differ_in_the_address_only() -> None:
    local, chart = load(ROOT / "deployments" / "serve.yaml"), chart_config()
    assert chart["http_options"].pop("host") == "0.0.0.0"
    assert local["http_options"].pop("host") == "127.0.0.1"
    assert local == chart


def test_the_template_uses_every_value() -> None:
    template = (CHART / "templates" / "rayservice.yaml").read_text()
    values = load(CHART / "values.yaml")
    assert [name for name in values if f".Values.{name}" not in template] == []
    assert load(CHART / "Chart.yaml")["apiVersion"] == "v2"
