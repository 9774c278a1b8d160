"""The dashboard as Grafana imports it."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.dashboard.panels import PANELS, Panel
from deployments.dashboard.queries import VARIABLES
from deployments.metrics.catalogue import METRICS

SCHEMA_VERSION = 39
WIDTH, HEIGHT = 8, 8
COLUMNS = 24 // WIDTH
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
LABELS_OF = {
    "model": "router_queue_depth",
    "strategy": "completion_tokens",
    "arm": "completion_tokens",
    "replica": "engine_forwards",
}
"""The metric whose label values a variable offers."""


def dashboard() -> dict[str, object]:
    return {
        "uid": "lacuna",
        "title": "Lacuna",
        "description": "Diffusion language models: traffic, queue, decoding, errors and experiments.",
        "tags": ["lacuna"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "templating": {"list": [_data_source(), *(_variable(name) for name in VARIABLES)]},
        "panels": list(_panels()),
    }


def _data_source() -> dict[str, object]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(name: str) -> dict[str, object]:
    query = f"label_values({METRICS[LABELS_OF[name]].series}, {name})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "labels"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _panels() -> Iterator[dict[str, object]]:
    number, top = 1, 0
    for row, panels in PANELS.items():
        yield {
            "id": number,
            "type": "row",
            "title": row,
            "collapsed": False,
            "panels": [],
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": top},
        }
        number, top = number + 1, top + 1
        for place, panel in enumerate(panels):
            yield _panel(panel, number, place % COLUMNS * WIDTH, top + place // COLUMNS * HEIGHT)
            number += 1
        top += -(-len(panels) // COLUMNS) * HEIGHT


def _panel(panel: Panel, number: int, left: int, top: int) -> dict[str, object]:
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    custom = {"drawStyle": "line", "fillOpacity": 20 if panel.stacked else 5, "stacking": stacking, "spanNulls": False}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": left, "y": top},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "range": True,
            }
            for index, query in enumerate(panel.queries)
        ],
    }
