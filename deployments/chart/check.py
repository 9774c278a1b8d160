"""Values before they are installed: with the application's own rules, which no JSON schema can say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from deployments.chart.schema import CHART
from deployments.chart.values import ChartValues
from deployments.config import explain
from engine.errors import ConfigError


def check_values(files: Sequence[Path], chart: Path = CHART) -> ChartValues:
    """The chart's values with those of the files over them, as ``helm -f`` merges; ConfigError lists what is wrong."""
    values: Mapping[str, Any] = {}
    for path in (chart / "values.yaml", *files):
        values = merged(values, _read(path))
    try:
        return ChartValues.model_validate(values, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigError(f"The chart's values are wrong. {explain(error)}") from None


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings deeply, everything else as a whole; null takes a value away."""
    result = dict(values)
    for key, change in changes.items():
        if change is None:
            result.pop(key, None)
        elif isinstance(change, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], change)
        else:
            result[key] = change
    return result


def _read(path: Path) -> Mapping[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}", "values") from error
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"{path} must hold values by name", "values")
    return loaded
