"""The page of settings is written from the schemas and up to date."""

from __future__ import annotations

import re
from dataclasses import fields

from deployments.config import AppConfig, AutoscalingConfig, ModelConfig
from deployments.settings_reference import PAGE, page
from engine.config import EngineConfig


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page(), re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def settings(title: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", section(title), re.MULTILINE)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m deployments.settings_reference --write"


def test_every_setting_is_on_it() -> None:
    assert settings("The application") == list(AppConfig.model_fields)
    assert settings("`models[]`") == list(ModelConfig.model_fields)
    assert settings("`models[].autoscaling`") == list(AutoscalingConfig.model_fields)
    assert settings("`models[].engine`") == [field.name for field in fields(EngineConfig)]
    assert settings("`experiments[].arms[]`")[0] == "name"


def test_a_row_tells_bounds_default_and_meaning() -> None:
    assert "| `max_key_share` | number > 0, ≤ 1 | `0.5` | Share of" in section("The application")
    assert "| `models` | list of object | `lacuna-tiny-sdar`, `lacuna-tiny-llada` |" in section("The application")
    assert "| `id` | string | required |" in section("`models[]`")
    assert '| `goal` | `""` / `quality` / `balanced` / `fast` | `""` |' in section("`models[].engine.strategies[]`")


def test_no_setting_lacks_its_meaning() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert [row for row in rows if row.endswith("|  |")] == []
