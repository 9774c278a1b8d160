"""GET /metrics of the whole HTTP application over fakes: what requests did is what a scrape says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from deployments import replay
from deployments.callers import ANONYMOUS
from deployments.config import AppConfig
from deployments.experiments.controller import ExperimentController
from deployments.metered import MeteredService
from deployments.metrics.catalogue import METRICS
from deployments.metrics.collector import MetricsCollector
from deployments.metrics.service_metrics import ServiceMetrics
from deployments.metrics.spec import Sample, gauge
from deployments.openai_api.convert import completion_job
from deployments.openai_api.requests import CompletionBody
from engine.errors import EngineDeadError
from tests.deployments.fakes import FakeEngine, FakeRouter, http_client, metered

CONFIG = AppConfig.parse({"models": "fake=/x"})
BODY = {"model": "fake", "prompt": "Hi", "max_tokens": 4}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Found = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(client: httpx.AsyncClient) -> Found:
    """All samples by name and labels, this ingress' own name left out."""
    families = parse_text((await client.get("/metrics")).text)
    return {key(sample.name, sample.labels): sample.value for family in families for sample in family.samples}


def key(name: str, labels: Mapping[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(item for item in labels.items() if item != ("replica", "replica-1"))


def value(found: Found, name: str, **labels: str) -> float:
    return found[key(f"lacuna_{name}", labels)]


async def test_metrics_count_what_happened() -> None:
    async with http_client(CONFIG, FakeEngine(["a", "b"]), FakeRouter()) as client:
        await client.post("/v1/completions", json=BODY | {"n": 2})
        await client.post("/v1/completions", json=BODY | {"stream": True})
        await client.post("/v1/completions", json=BODY | {"model": "none"})
        await client.get("/secret-path")
        found = await scrape(client)

    route = {"transport": "http", "route": "/v1/completions"}
    assert value(found, "requests_total", **route, model="fake", status="2xx") == 2
    assert value(found, "requests_total", **route, model="", status="4xx") == 1
    assert value(found, "requests_total", transport="http", route="none", model="", status="4xx") == 1
    assert value(found, "request_duration_seconds_count", **route) == 3
    choice = {"model": "fake", "strategy": "fast", "arm": ""}
    assert value(found, "completion_tokens_total", **choice) == 6
    assert value(found, "prompt_tokens_total", **choice) == 6, "once for both choices"
    assert value(found, "forwards_total", **choice) == value(found, "denoising_steps_total", **choice) == 6
    assert value(found, "positions_computed_total", **choice) == 48
    assert value(found, "forwards_per_request_bucket", **choice, le="2.0") == 1
    assert value(found, "forwards_per_request_sum", **choice) == 6
    for name in ("tokens_per_forward", "first_increment_seconds", "generation_duration_seconds"):
        assert value(found, f"{name}_count", **choice) == 2
    assert value(found, "queue_wait_seconds_count", model="fake") == 2
    assert value(found, "generations_in_flight", model="fake") == 0
    assert value(found, "router_in_flight", model="fake") == 0
    assert not any("secret-path" in str(one) or "'none'" in str(one[0]) for one in found)


async def test_metrics_count_failures_and_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MAX_REPLAYS", 1)
    monkeypatch.setattr(replay, "FIRST_PAUSE_S", 0.0)
    async with http_client(CONFIG, FakeEngine(fail_after=1, error=EngineDeadError("gone"))) as client:
        await client.post("/v1/completions", json=BODY)
        found = await scrape(client)
    assert value(found, "generation_errors_total", model="fake", arm="", error="EngineDead") == 1
    assert value(found, "replays_total", model="fake") == 1
    unfinished = {"model": "fake", "strategy": "unfinished", "arm": ""}
    assert value(found, "completion_tokens_total", **unfinished) > 0, "what was computed before the failure counts"


async def test_every_engine_replica_is_there_once() -> None:
    async with http_client(CONFIG, FakeEngine(), other=FakeEngine()) as client:
        found = await scrape(client)
    running = {labels for name, labels in found if name == "lacuna_engine_running_sequences"}
    assert running == {
        frozenset({("model", model), ("replica", replica)})
        for model in ("fake", "other")
        for replica in ("engine-1", "engine-2")
    }
    assert value(found, "scrape_replicas", component="engine", model="fake") == 2
    assert value(found, "scrape_failed", component="engine", model="fake") == 0


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_a_scrape_obeys_the_rules_of_its_format(accept: str) -> None:
    async with http_client(CONFIG, FakeEngine()) as client:
        await client.post("/v1/completions", json=BODY)
        response = await client.get("/metrics", headers={"accept": accept})
    assert response.headers["content-type"].startswith(accept.split(";")[0] or "text/plain")
    families = list((parse_openmetrics if accept else parse_text)(response.text))
    assert [family.name for family in families] == [spec.family for spec in METRICS.values()]
    for family in families:
        check(family)


def check(family: Metric) -> None:
    """What the catalogue promises of a family."""
    spec = METRICS[family.name.removeprefix("lacuna_")]
    assert family.documentation == spec.help
    assert family.type == spec.kind
    for sample in family.samples:
        assert set(sample.labels) == set(spec.labels) | ({"le"} if sample.name.endswith("_bucket") else set())
        assert re.fullmatch(spec.family + "(_total|_bucket|_sum|_count)?", sample.name)
        assert sample.name.endswith("_total") == (spec.kind == "counter")


class Fleet:
    def __init__(self, *answers: Sequence[Sample], delay_s: float = 0.0, error: Exception | None = None) -> None:
        self.answers = answers
        self.delay_s = delay_s
        self.error = error

    async def metrics(self) -> Sequence[Sequence[Sample]]:
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return self.answers


def ingress(replica: str) -> list[Sample]:
    return [gauge("generations_in_flight", 1, replica=replica, model="fake")]


@pytest.mark.parametrize("siblings", [["a", "b"], ["b"]])
async def test_any_ingress_speaks_for_all_and_for_itself_once(siblings: list[str]) -> None:
    peers = Fleet(*map(ingress, siblings))
    samples = await MetricsCollector(lambda: ingress("a"), Fleet(), {}, peers).samples()
    assert [one.labels["replica"] for one in samples if one.name == "generations_in_flight"] == ["a", "b"]


@pytest.mark.parametrize("broken", [Fleet(error=EngineDeadError("gone")), Fleet(ingress("b"), delay_s=60)])
async def test_who_does_not_answer_is_left_out_and_told(broken: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    collector = MetricsCollector(lambda: ingress("a"), broken, {"m": broken}, broken, timeout_s=0.05)
    samples = await collector.samples()
    failed = {one.labels["component"]: one.value for one in samples if one.name == "scrape_failed"}
    assert failed == {"ingress": 1, "router": 1, "engine": 1}
    assert [one.labels["replica"] for one in samples if one.name == "generations_in_flight"] == ["a"]
    assert "engine m does not say what it measures" in caplog.text


async def test_arms_and_the_ledger_of_experiments(tmp_path: Path) -> None:
    arms = [{"name": "slow"}, {"name": "quick", "strategy": {"threshold": 0.5}}]
    experiments = [{"name": "speed", "arms": arms}]
    ledger = f"sqlite:///{tmp_path}/ledger.sqlite3"
    config = AppConfig.parse({"models": "fake=/x", "experiments": experiments, "ledger": ledger})
    service = MeteredService(
        FakeRouter(), {"fake": FakeEngine()}, ExperimentController(config), ServiceMetrics("replica-1")
    )
    job = completion_job(CompletionBody.model_validate(BODY | {"user": "somebody"}), config, ANONYMOUS)
    assignment = service.assignment(job)
    assert assignment is not None
    await service.complete(job)
    await service.close()
    found = {(one.name, *sorted(one.labels.values()), one.suffix): one.value for one in service.own_samples()}
    choice = sorted(("replica-1", "fake", "fast", f"speed/{assignment.arm}"))
    assert found["completion_tokens", *choice, "_total"] == 2
    assert found["ledger_records", "replica-1", "written", "_total"] == 2, "the definition and the request"
    assert found["ledger_healthy", "replica-1", ""] == 1
    assert found["shadow_runs", "replica-1", "started", "_total"] == 0


async def test_the_samples_of_an_ingress_carry_its_name() -> None:
    samples = metered(FakeEngine()).own_samples()
    assert {one.labels["replica"] for one in samples} == {"replica-1"}
