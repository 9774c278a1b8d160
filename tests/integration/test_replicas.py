"""An application with two replicas of a model: they share the work, and losing them is not noticed by clients."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray import serve

from deployments.app import build_app, deployment_name
from deployments.config import AppConfig
from tests.integration.conftest import Service

pytestmark = pytest.mark.timeout(300)  # the first test starts two applications

APP = "twins"
MODEL = "lacuna-tiny-sdar"
SLOTS = 16


@dataclass(frozen=True, slots=True)
class Twins:
    """The application, and what its replicas say of themselves."""

    base_url: str

    def router_stats(self) -> dict[str, float]:
        stats: dict[str, float] = (
            serve.get_deployment_handle("Router", APP).record_autoscaling_stats.remote().result(timeout_s=30)
        )
        return stats

    def ask_all(self, method: str) -> list[Any]:
        answers = serve.get_deployment_handle(deployment_name(MODEL), APP).broadcast(method)
        return [one for one in answers.results(timeout_s=30, return_exceptions=True) if not isinstance(one, Exception)]

    def scrape(self) -> dict[str, dict[str, float]]:
        """Sums of this model's counters and gauges by the replica that tells them ("" for the router)."""
        text = httpx.get(f"{self.base_url}/metrics", timeout=30).raise_for_status().text
        sums: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("model") == MODEL:
                    by_replica = sums.setdefault(sample.name, {})
                    replica = sample.labels.get("replica", "")
                    by_replica[replica] = by_replica.get(replica, 0.0) + sample.value
        return sums

    def lost_replicas(self) -> float:
        """How many the router has counted."""
        return self.scrape()["lacuna_router_lost_replicas_total"][""]

    def kill(self, replica: str) -> None:
        """End the process of a replica without a word."""
        ray.kill(ray.get_actor(f"SERVE_REPLICA::{APP}#{deployment_name(MODEL)}#{replica}", namespace="serve"))

    def is_idle(self) -> bool:
        """Both replicas are there, every slot is free and nothing holds a place in the router."""
        router, engines = self.router_stats(), self.ask_all("stats")
        return (
            router["queue_depth"] == router["in_flight"] == router["predicted_work_s"] == 0
            and len(engines) == 2
            and all(one["num_free_slots"] == SLOTS and one["num_waiting"] == 0 for one in engines)
        )


@pytest.fixture(scope="module")
def twins(service: Service) -> Iterator[Twins]:
    config = AppConfig.parse(
        {
            "models": [{"id": MODEL, "engine": {"max_num_seqs": SLOTS}, "num_replicas": 2, "num_cpus": 0.25}],
            "ingress_replicas": 2,
            "graceful_shutdown_timeout_s": 2,
            "graceful_shutdown_wait_loop_s": 0.1,
            "health_check_period_s": 1,
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves pipes and sockets of its processes open
        serve.run(build_app(config), name=APP, route_prefix="/twins")
        yield Twins(f"{service.base_url}/twins")
        serve.delete(APP)


@dataclass(slots=True)
class Answer:
    """What a client has seen of a stream, per choice."""

    texts: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    chunks: int = 0
    done: bool = False
    errors: list[Any] = field(default_factory=list)

    def take(self, chunk: dict[str, Any]) -> None:
        self.chunks += 1
        if "error" in chunk:
            self.errors.append(chunk["error"])
        for choice in chunk.get("choices", ()):
            index = choice["index"]
            self.texts[index] = self.texts.get(index, "") + choice["text"]
            if choice["finish_reason"]:
                self.reasons[index] = choice["finish_reason"]
        self.usage = chunk.get("usage") or self.usage


def stream(base_url: str, body: dict[str, Any], answer: Answer) -> Answer:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    with (
        httpx.Client(base_url=base_url, timeout=100) as client,
        client.stream("POST", "/v1/completions", json=body | options) as response,
    ):
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line == "data: [DONE]":
                answer.done = True
            elif line.startswith("data: "):
                answer.take(json.loads(line.removeprefix("data: ")))
    return answer


def bodies() -> list[dict[str, Any]]:
    """32 streams: greedy and drawn, some with two choices, some with stop texts that hold characters back."""
    return [
        {
            "model": MODEL,
            "prompt": f"Tell story number {number}.",
            "max_tokens": 120 + number,
            "ignore_eos": True,
            "temperature": 0.9 * (number % 2),
            "seed": number,
            "n": 2 if number % 8 == 0 else 1,
            "stop": ["e\x00", " \x00"] if number % 3 == 0 else None,
            "diffusion": {"decoder": "sequential"},
        }
        for number in range(32)
    ]


def test_two_losses_under_32_streams_are_not_noticed(twins: Twins, eventually: Callable[..., None]) -> None:
    requests = bodies()
    with ThreadPoolExecutor(32) as pool:
        undisturbed = list(pool.map(lambda body: stream(twins.base_url, body, Answer()), requests))
    answers = [Answer() for _ in requests]
    with ThreadPoolExecutor(32) as pool:
        futures = [pool.submit(stream, twins.base_url, *pair) for pair in zip(requests, answers, strict=True)]
        first, second = twins.ask_all("live")
        for victim, chunks in ((first, 100), (second, 300)):
            eventually(lambda chunks=chunks: sum(answer.chunks for answer in answers) > chunks, 60.0)
            assert not all(answer.done for answer in answers)
            twins.kill(victim)
        for future in futures:
            future.result(timeout=100)
    for body, whole, answer in zip(requests, undisturbed, answers, strict=True):
        assert answer.errors == []
        assert answer.done
        assert (answer.texts, answer.reasons) == (whole.texts, whole.reasons), body
        assert answer.usage["completion_tokens"] == whole.usage["completion_tokens"]
        assert answer.usage["prompt_tokens"] == whole.usage["prompt_tokens"]
    work = [sum(answer.usage["diffusion"]["forwards"] for answer in group) for group in (undisturbed, answers)]
    assert work[0] <= work[1] < 2 * work[0], "what was finished is not done again"
    assert sum(twins.scrape()["lacuna_replays_total"].values()) >= 2
    eventually(twins.is_idle, 60.0)


def test_whole_answers_survive_too(twins: Twins, eventually: Callable[..., None]) -> None:
    eventually(twins.is_idle, 60.0)
    requests = bodies()[:8]
    before, lost_before = twins.scrape(), twins.lost_replicas()

    def ask(body: dict[str, Any]) -> Any:
        response = httpx.post(f"{twins.base_url}/v1/completions", json=body, timeout=100)
        assert response.status_code == 200, response.text
        return [(choice["text"], choice["finish_reason"]) for choice in response.json()["choices"]]

    with ThreadPoolExecutor(8) as pool:
        undisturbed = list(pool.map(ask, requests))
        killer = threading.Timer(0.3, twins.kill, [twins.ask_all("live")[0]])
        killer.start()
        assert list(pool.map(ask, requests)) == undisturbed
        killer.join()
    eventually(twins.is_idle, 60.0)
    eventually(lambda: twins.lost_replicas() == lost_before + 1)
    new = twins.scrape()["lacuna_engine_slots"].keys() - before["lacuna_engine_slots"].keys()
    assert len(new) == 1, "the lost replica's series are gone, those of its successor are there"


def test_skewed_requests_are_balanced_by_work(twins: Twins, eventually: Callable[..., None]) -> None:
    """Long and short requests in turn: each replica gets about the same number of tokens to generate. Dealt out in
    turns, one would get all of the long ones. A token a forward, so that no long one ends while others still arrive: a
    replica that is faster would rightly be given more then."""
    eventually(twins.is_idle, 60.0)
    before = {one["replica"]: one["tokens"] for one in twins.ask_all("stats")}
    lengths = [240 if number % 4 == 0 else 12 for number in range(24)]

    def ask(numbered: tuple[int, int]) -> None:
        number, length = numbered
        time.sleep(0.02 * number)
        body = {"model": MODEL, "prompt": "Go on.", "ignore_eos": True, "max_tokens": length}
        body["diffusion"] = {"decoder": "sequential"}
        httpx.post(f"{twins.base_url}/v1/completions", json=body, timeout=100).raise_for_status()

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(ask, enumerate(lengths)))
    done = [one["tokens"] - before[one["replica"]] for one in twins.ask_all("stats")]
    assert sum(done) == sum(lengths)
    assert max(done) - min(done) <= max(lengths), "turns: 1368"


def test_every_scrape_has_all_replicas_whichever_ingress_answers(twins: Twins, eventually: Callable[..., None]) -> None:
    eventually(twins.is_idle, 60.0)
    before = twins.scrape()
    for number in range(8):  # each on a connection of its own
        body = {"model": MODEL, "prompt": "Go on.", "ignore_eos": True, "max_tokens": 4 + number}
        httpx.post(f"{twins.base_url}/v1/completions", json=body, timeout=100).raise_for_status()
    scrapes = [twins.scrape() for _ in range(6)]
    counters = {name for name in before if name.endswith("_total")}
    for found in scrapes:
        assert all(found[name] == scrapes[0][name] for name in counters), "a scrape has lost or doubled something"
    found = scrapes[0]
    gained = {name: sum(found[name].values()) - sum(before[name].values()) for name in counters}
    assert gained["lacuna_requests_total"] == 8
    assert gained["lacuna_completion_tokens_total"] == gained["lacuna_engine_tokens_total"] == sum(range(4, 12))
    assert gained["lacuna_engine_forwards_total"] <= gained["lacuna_forwards_total"]
    assert found["lacuna_engine_slots"].keys() == {one["replica"] for one in twins.ask_all("stats")}
    assert len(found["lacuna_requests_total"]) == 2, "both ingress replicas have answered somebody"
    assert found["lacuna_scrape_replicas"][""] == 2
