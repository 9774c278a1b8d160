"""What is generated from the metrics' catalogue: up to date, complete, and about metrics and labels that exist."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
import yaml

from deployments.dashboard import __main__ as command
from deployments.dashboard import queries
from deployments.dashboard.alerts import ALERTS, RUNBOOK
from deployments.dashboard.grafana import dashboard
from deployments.dashboard.panels import PANELS
from deployments.metrics.catalogue import METRICS
from deployments.metrics.spec import MetricSpec

EXPRESSIONS = [query.expr for panels in PANELS.values() for panel in panels for query in panel.queries]
RULES = [alert.expr for alert in ALERTS]
GRAFANA_UNITS = {"short", "s", "reqps", "cps", "percentunit"}
SERIES: dict[str, MetricSpec] = {
    spec.family + suffix: spec
    for spec in METRICS.values()
    for suffix in {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[spec.kind]
}


def test_the_files_are_up_to_date() -> None:
    assert command.stale() == [], "run: python -m deployments.dashboard --write"


def test_the_check_fails_where_a_file_is_not(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["dashboard", "--check"])
    with pytest.raises(SystemExit, match=r"lacuna\.json.*--write"):
        command.main()
    monkeypatch.setattr(sys, "argv", ["dashboard", "--write"])
    command.main()
    assert command.stale() == []


@pytest.mark.parametrize("expr", [*EXPRESSIONS, *RULES])
def test_a_query_is_about_series_and_labels_that_exist(expr: str) -> None:
    assert expr.count("(") == expr.count(")")
    used = re.findall(r"(lacuna_\w+)(?:\{([^}]*)\})?", expr)
    assert used
    labels = set.intersection(*(set(SERIES[series].labels) for series, _ in used))
    for series, matchers in used:
        named = re.findall(r"(\w+)(?:=~|!=|=)\"", matchers)
        assert set(named) <= set(SERIES[series].labels)
    for grouping in re.findall(r"by \(([^)]*)\)", expr):
        assert set(filter(None, re.split(r", ?", grouping))) <= labels | {"le"}
    assert ("rate(" in expr or "increase(" in expr) == any(SERIES[series].kind != "gauge" for series, _ in used)


@pytest.mark.parametrize("spec", [pytest.param(spec, id=spec.name) for spec in METRICS.values()])
def test_every_metric_is_on_a_panel_of_its_row(spec: MetricSpec) -> None:
    row = " ".join(query.expr for panel in PANELS[spec.row] for query in panel.queries)
    series = [name for name, owner in SERIES.items() if owner is spec]
    assert any(re.search(rf"\b{name}\b", row) for name in series)


def test_the_variables_filter_where_there_is_such_a_label() -> None:
    assert queries.rate("completion_tokens") == (
        'sum (rate(lacuna_completion_tokens_total{model=~"$model", strategy=~"$strategy", arm=~"$arm"}'
        "[$__rate_interval]))"
    )
    assert '{model=~"$model", replica=~"$replica"}' in queries.rate("engine_forwards", "replica")
    with pytest.raises(AssertionError, match="no label"):
        queries.rate("engine_forwards", "strategy")
    with pytest.raises(AssertionError, match="is a gauge"):
        queries.rate("router_queue_depth")
    with pytest.raises(KeyError):
        queries.rate("invented")


def test_the_dashboard_has_the_shape_that_grafana_reads() -> None:
    board: dict[str, Any] = json.loads(json.dumps(dashboard()))
    assert board["schemaVersion"] >= 36
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert list(variables) == ["datasource", "model", "strategy", "arm", "replica"]
    assert variables["datasource"]["type"] == "datasource"
    panels = board["panels"]
    assert [one["title"] for one in panels if one["type"] == "row"] == list(PANELS)
    assert len({one["id"] for one in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, "panels overlap"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in GRAFANA_UNITS
        assert panel["datasource"]["uid"] == "${datasource}"
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        for variable in re.findall(r"\$(\w+)", " ".join(target["expr"] for target in panel["targets"])):
            assert variable in {*variables, "__rate_interval"}


def test_a_legend_names_labels_of_its_query() -> None:
    for panels in PANELS.values():
        for panel in panels:
            for query in panel.queries:
                grouped = set(re.split(r", ?", " ".join(re.findall(r"by \(([^)]*)\)", query.expr)).replace(" ", ",")))
                assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= grouped, panel.title


def test_every_alert_is_in_the_runbook_and_no_other() -> None:
    runbook = (command.ROOT / RUNBOOK).read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", runbook, re.MULTILINE) == [alert.name for alert in ALERTS]
    links = re.findall(r"\(#(\w+)\)", runbook)
    assert set(links) <= {alert.name.lower() for alert in ALERTS}


def test_the_rules_are_a_rule_group_of_prometheus() -> None:
    loaded = yaml.safe_load(command.files()["helm/lacuna/rules/lacuna.yaml"])
    (group,) = loaded["groups"]
    for rule in group["rules"]:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert re.fullmatch(r"\d+m", rule["for"])
        labels = set().union(*(SERIES[name].labels for name in re.findall(r"lacuna_\w+", rule["expr"])))
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels
