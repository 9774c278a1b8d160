"""A real scrape of the running service: its processes, its formats, and counters that agree with what requests did."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from deployments.config import EMBEDDED_MODELS
from deployments.metrics.catalogue import METRICS
from tests.integration.conftest import SLOTS, Service

SDAR = "lacuna-tiny-sdar"
TOKENS = 12

Found = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(http: httpx.Client) -> Found:
    """All samples by name and labels, the names of replicas left out (there is one of each deployment)."""
    families = parse_text(http.get("/metrics").raise_for_status().text)
    return {key(one.name, one.labels): one.value for family in families for one in family.samples}


def key(name: str, labels: Mapping[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(item for item in labels.items() if item[0] != "replica")


def test_counters_agree_with_what_a_request_did(service: Service, http: httpx.Client) -> None:
    before = scrape(http)
    options = {"decoder": "threshold", "threshold": 0.9}
    body = {"model": SDAR, "prompt": "2 + 3 =", "max_tokens": TOKENS, "ignore_eos": True, "diffusion": options}
    answer = http.post("/v1/completions", json=body).raise_for_status().json()
    refused = http.post("/v1/completions", json=body | {"max_tokens": -1})
    assert refused.status_code == 400
    after = scrape(http)

    def gained(name: str, **labels: str) -> float:
        one = key(f"lacuna_{name}", labels)
        return after[one] - before.get(one, 0.0)

    usage = answer["usage"]
    cost = usage["diffusion"]
    choice = {"model": SDAR, "strategy": "threshold", "arm": ""}
    assert gained("completion_tokens_total", **choice) == usage["completion_tokens"] == TOKENS
    assert gained("prompt_tokens_total", **choice) == usage["prompt_tokens"]
    assert gained("forwards_total", **choice) == cost["forwards"]
    assert gained("positions_computed_total", **choice) == cost["positions_computed"]
    assert gained("engine_tokens_total", model=SDAR) == TOKENS
    assert gained("engine_forwards_total", model=SDAR) == cost["forwards"]
    assert gained("engine_positions_total", model=SDAR) == cost["positions_computed"]
    assert gained("engine_sequences_total", model=SDAR, reason="length") == 1
    for phase in ("host", "forward", "decide"):
        assert gained("engine_step_seconds_count", model=SDAR, phase=phase) == cost["forwards"]
    assert gained("engine_step_seconds_sum", model=SDAR, phase="forward") > 0
    assert gained("router_admitted_total", model=SDAR) == gained("queue_wait_seconds_count", model=SDAR) == 1
    route = {"transport": "http", "route": "/v1/completions", "model": SDAR}
    assert gained("requests_total", **route, status="2xx") == 1
    assert gained("requests_total", **route, status="4xx") + gained_elsewhere(before, after) == 1


def gained_elsewhere(before: Found, after: Found) -> float:
    """Refused bodies whose model was not read."""
    labels = {"transport": "http", "route": "/v1/completions", "model": "", "status": "4xx"}
    one = key("lacuna_requests_total", labels)
    return after.get(one, 0.0) - before.get(one, 0.0)


def test_every_process_is_in_one_scrape(service: Service, http: httpx.Client) -> None:
    found = scrape(http)
    for model in EMBEDDED_MODELS:
        stats = service.engine_stats(model)
        assert found[key("lacuna_engine_slots", {"model": model, "state": "free"})] == SLOTS
        assert found[key("lacuna_engine_pages", {"model": model, "state": "free"})] == stats["num_free_pages"]
        assert found[key("lacuna_engine_kv_positions", {"model": model, "state": "used"})] == 0
        assert found[key("lacuna_router_replicas", {"model": model})] == 1
        assert found[key("lacuna_router_places", {"model": model})] > SLOTS
        assert found[key("lacuna_scrape_replicas", {"component": "engine", "model": model})] == 1
    assert not any(value for (name, _), value in found.items() if name == "lacuna_scrape_failed")
    assert found[key("lacuna_ledger_healthy", {})] == 1


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_both_formats(http: httpx.Client, accept: str) -> None:
    response = http.get("/metrics", headers={"accept": accept})
    assert response.headers["content-type"].startswith(accept.split(";")[0])
    families = list((parse_openmetrics if "openmetrics" in accept else parse_text)(response.text))
    assert [family.name for family in families] == [spec.family for spec in METRICS.values()]
