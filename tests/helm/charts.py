"""The chart, rendered by Helm's own engine (helm-python-sdk), and its objects."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "lacuna"
EXAMPLES = sorted((ROOT / "helm" / "examples").glob("*.yaml"))
Objects = list[dict[str, Any]]
load_yaml: Callable[[str], Any] = functools.partial(yaml.load, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@functools.cache
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def example(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = load_yaml(path.read_text())
    return values


def merged(values: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others over them, as several ``-f`` files are merged: mappings deeply, lists as a whole."""
    result = copy.deepcopy(dict(values))
    for change in changes:
        for key, value in change.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result


def render(values: Mapping[str, Any], name: str = "demo", namespace: str = "llm") -> Objects:
    """The objects; HelmError where the values are refused."""
    return copy.deepcopy(_render(json.dumps(values), name, namespace))


@functools.cache
def _render(values: str, name: str, namespace: str) -> Objects:
    chart().validate_schema(json.loads(values))
    texts = chart().render(json.loads(values), name=name, namespace=namespace)
    documents = [document for path, text in texts.items() if path.endswith(".yaml") for document in split(text)]
    return [one for one in documents if one]


def split(text: str) -> list[Any]:
    return [load_yaml(part) for part in ("\n" + text).split("\n---") if part.strip()]


def find(objects: Objects, kind: str, suffix: str = "") -> dict[str, Any]:
    """The one object of the kind whose name ends so."""
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"].endswith(suffix)]
    return found


def cluster_of(objects: Objects) -> dict[str, Any]:
    config: dict[str, Any] = find(objects, "RayService")["spec"]["rayClusterConfig"]
    return config


def serve_config(objects: Objects) -> dict[str, Any]:
    config: dict[str, Any] = load_yaml(find(objects, "RayService")["spec"]["serveConfigV2"])
    return config


def pod_templates(objects: Objects) -> list[dict[str, Any]]:
    """Of the head and of every group of workers."""
    cluster = cluster_of(objects)
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
