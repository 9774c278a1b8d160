"""helm/Dockerfile and the documentation: what they name is there. Image and cluster cannot be run in a test."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from deployments.chart.pods import WorkerGroup
from deployments.config import AppConfig
from tests.helm.charts import CHART, ROOT, example, load_yaml, merged, render

DOCKERFILE = (ROOT / "helm" / "Dockerfile").read_text()
SECTION = (ROOT / "README.md").read_text().split("\n## On Kubernetes\n")[1].split("\n## ")[0]

OPERATIONS = (ROOT / "helm" / "OPERATIONS.md").read_text()
DESIGN = (ROOT / "helm" / "DESIGN.md").read_text()


def test_the_image_holds_every_package_and_what_the_build_needs() -> None:
    copied = set(" ".join(re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE)).split())
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    files = {"pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]}
    assert packages | files <= copied


def test_the_images_user_is_the_charts() -> None:
    values = load_yaml((CHART / "values.yaml").read_text())
    assert (
        f"USER {values['podSecurityContext']['runAsUser']}:{values['podSecurityContext']['runAsGroup']}" in DOCKERFILE
    )
    assert f"useradd --uid {values['podSecurityContext']['runAsUser']} " in DOCKERFILE


def test_the_image_has_the_versions_that_the_chart_names() -> None:
    values = load_yaml((CHART / "values.yaml").read_text())
    assert f"ray=={values['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert load_yaml((CHART / "Chart.yaml").read_text())["appVersion"] == project["version"] == values["image"]["tag"]
    assert f"-t {values['image']['repository']}:{values['image']['tag']} " in DOCKERFILE


def test_readmes_installation_renders() -> None:
    (path,) = re.findall(r"helm install \S+ \S+ -f (\S+)", SECTION)
    values = example(ROOT / path)
    for name, text in re.findall(r"--set ([\w.]+)=(\S+)", SECTION):
        change: object = {"true": True}.get(text, text)
        for part in reversed(name.split(".")):
            change = {part: change}
        values = merged(values, change)  # type: ignore[arg-type]
    assert {one["kind"] for one in render(values)} >= {"RayService", "Deployment"}


@pytest.mark.parametrize("text", [SECTION, OPERATIONS, DESIGN], ids=["README", "OPERATIONS", "DESIGN"])
def test_values_that_the_documentation_names_exist(text: str) -> None:
    values = load_yaml((CHART / "values.yaml").read_text())
    values["app"] = AppConfig.model_fields
    values["workerGroups"] = WorkerGroup.model_json_schema()["properties"]
    quoted = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    names = [found[1] for one in quoted if (found := re.match(r"(\w+(?:\.\w+)+)(?=$|[: ])", one))]
    known = [name.split(".") for name in names if name.split(".")[0] in values]
    first_column = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", SECTION, re.MULTILINE)))
    assert known
    assert first_column
    for parts in [*known, *([name] for name in first_column)]:
        node: Any = values
        for part in parts:
            assert part in node, parts
            node = node[part]


def test_links_of_the_documentation_lead_somewhere() -> None:
    for text, folder in ((SECTION, ROOT), (OPERATIONS, ROOT / "helm"), (DESIGN, ROOT / "helm")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (folder / target).exists(), target
