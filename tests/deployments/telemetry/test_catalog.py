from __future__ import annotations

import pytest

from deployments.telemetry.catalog import DEPLOYMENT_SPANS, TABLE, main, table
from engine.span_catalog import ENGINE_SPANS


def test_the_documentation_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert TABLE.read_text(encoding="utf-8") == capsys.readouterr().out, (
        "run `python -m deployments.telemetry.catalog --write`"
    )


def test_every_span_and_attribute_is_in_the_table() -> None:
    specs = (*DEPLOYMENT_SPANS, *ENGINE_SPANS)
    text = table(specs)
    assert len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        assert f"## `{spec.name}`" in text
        assert all(f"| `{name}` | {meaning} |" in text for name, meaning in spec.attributes.items())
