"""Replicas follow the router's queue on a real cluster: none, as many as the load needs, none again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from ray import serve

from deployments.app import deployment_name
from deployments.config import AppConfig
from deployments.launch import deploy
from tests.integration.conftest import Service

APP = "elastic"
MODEL = "lacuna-tiny-sdar"
BODY = {"prompt": "Tell a long story.", "max_tokens": 150, "ignore_eos": True, "diffusion": {"decoder": "sequential"}}


def replicas() -> int:
    """Engine replicas that run."""
    states = serve.status().applications[APP].deployments[deployment_name(MODEL)].replica_states
    return sum(count for state, count in states.items() if state == "RUNNING")


@pytest.fixture(scope="module")
def elastic(service: Service) -> Iterator[str]:
    config = AppConfig.parse(
        {
            "models": [
                {
                    "id": MODEL,
                    "engine": {"max_num_seqs": 4},
                    "num_cpus": 0.25,
                    "autoscaling": {
                        "min_replicas": 0,
                        "initial_replicas": 0,
                        "max_replicas": 2,
                        "target_requests": 4,
                        "upscale_delay_s": 0.5,
                        "downscale_delay_s": 2,
                        "downscale_to_zero_delay_s": 2,
                        "look_back_s": 2,
                    },
                }
            ],
            "keepalive_s": 0.5,
            "graceful_shutdown_timeout_s": 2,
            "graceful_shutdown_wait_loop_s": 0.1,
            "health_check_period_s": 1,
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves pipes and sockets of its processes open
        deploy(config, APP, "/elastic")
        yield f"{service.base_url}/elastic"
        serve.delete(APP)


@pytest.mark.timeout(300)
def test_from_none_to_several_to_none(elastic: str, eventually: Callable[..., None]) -> None:
    assert replicas() == 0
    health = httpx.get(f"{elastic}/health", timeout=20)
    assert health.status_code == 200, "asleep is not ill"
    assert replicas() == 0, "and a probe wakes nobody"

    lines = streamed_lines(elastic)
    first_data = next(index for index, line in enumerate(lines) if line.startswith("data: "))
    assert ": keep-alive" in lines[:first_data], "while a replica was being started"
    assert lines[-1] == "data: [DONE]"
    assert replicas() >= 1

    most, deadline = 0, time.monotonic() + 100
    with ThreadPoolExecutor(16) as pool:
        answers: list[Future[httpx.Response]] = []
        while most < 2 and time.monotonic() < deadline:
            running = sum(not answer.done() for answer in answers)
            answers += [
                pool.submit(httpx.post, f"{elastic}/v1/completions", json=BODY, timeout=200)
                for _ in range(16 - running)
            ]
            time.sleep(0.1)
            most = max(most, replicas())
    assert [answer.result().status_code for answer in answers] == [200] * len(answers)
    assert most == 2
    eventually(lambda: replicas() == 0, 60.0)


def streamed_lines(base_url: str) -> list[str]:
    body: dict[str, Any] = BODY | {"stream": True, "max_tokens": 8}
    with (
        httpx.Client(base_url=base_url, timeout=100) as client,
        client.stream("POST", "/v1/completions", json=body) as response,
    ):
        assert response.status_code == 200
        return [line for line in response.iter_lines() if line]
