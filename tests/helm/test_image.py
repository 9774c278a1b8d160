"""helm/Dockerfile and README's commands: what they name is there. Neither can be run here."""

from __future__ import annotations

import re
import tomllib

from tests.helm.charts import CHART, ROOT, example, load_yaml, merged, render

DOCKERFILE = (ROOT / "helm" / "Dockerfile").read_text()
SECTION = (ROOT / "README.md").read_text().split("\n## On Kubernetes\n")[1].split("\n## ")[0]


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


def test_readmes_values_exist() -> None:
    properties = load_yaml((CHART / "values.yaml").read_text())
    names = [
        name for row in re.findall(r"^\| (`.*?) \|", SECTION, re.MULTILINE) for name in re.findall(r"`([\w.]+)`", row)
    ]
    assert len(names) > 10
    for name in names:
        node = properties
        for part in name.split("."):
            assert part in node, name
            node = node[part]
