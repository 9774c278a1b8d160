"""Every object of every example is one that Kubernetes, KubeRay and the Prometheus operator know."""

from __future__ import annotations

import json
from pathlib import Path

import helm_python
import pytest
from jsonschema import ValidationError

from deployments.chart.values import ChartValues
from tests.helm.charts import CHART, EXAMPLES, Objects, example, load_yaml, merged, pod_templates, render
from tests.helm.kubernetes import validate

DEFAULT = Path("default")
ALL_VALUES = [DEFAULT, *EXAMPLES]


def objects_of(path: Path) -> Objects:
    return render({} if path is DEFAULT else example(path))


@pytest.mark.parametrize("path", ALL_VALUES, ids=lambda path: path.stem)
def test_every_object_is_valid(path: Path) -> None:
    objects = objects_of(path)
    for one in objects:
        validate(one)
        assert one["metadata"]["namespace"] == "llm"
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "demo"
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    for template in pod_templates(objects):
        metadata = {"name": "pod", **template["metadata"]}
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})


def test_production_makes_every_kind_of_object() -> None:
    rules = sorted((CHART / "rules").glob("*.yaml"))
    dashboards = sorted((CHART / "dashboards").glob("*.json"))
    kinds = [one["kind"] for one in render(example(CHART.parent / "examples" / "production.yaml"))]
    assert sorted(kinds) == sorted(
        ["RayService", "ServiceAccount", "Deployment", "ConfigMap", "Pod", *["Service"] * 2, *["NetworkPolicy"] * 2]
        + ["PodDisruptionBudget"] * 2
        + ["PodMonitor"] * 2
        + ["PrometheusRule"] * len(rules)
        + ["ConfigMap"] * bool(dashboards)
    )


def test_the_default_is_small() -> None:
    kinds = [one["kind"] for one in render({})]
    assert sorted(kinds) == ["Pod", "RayService", "Service", "ServiceAccount"]  # the pod is the one of `helm test`


def test_unknown_fields_are_found_in_every_kind_of_object() -> None:
    kinds = {one["kind"]: one for one in render(example(CHART.parent / "examples" / "production.yaml"))}
    for one in kinds.values():
        if "spec" in one:
            with pytest.raises(ValidationError, match="unknownField"):
                validate(merged(one, {"spec": {"unknownField": 1}}))


def test_helm_finds_nothing_to_object_to() -> None:
    result = helm_python.lint(CHART, strict=True)
    assert result["errors"] == []
    assert [one["error"] for one in result["messages"]] == ["icon is recommended"]


def test_the_values_file_says_the_defaults_of_the_schema() -> None:
    values = load_yaml((CHART / "values.yaml").read_text())
    given = ChartValues.model_validate(values, by_alias=True, by_name=False)
    default = ChartValues()
    beside = {"app", "head", "worker_groups"}
    assert json.loads(given.model_dump_json(exclude=beside)) == json.loads(default.model_dump_json(exclude=beside))
    assert given.app == default.app
    assert set(values) == set(ChartValues.model_json_schema()["properties"]) - {"global"}
