"""A replica over two ranks: it answers as one rank does, clients notice no loss, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray._private import state

from deployments.app import build_app, deployment_name
from deployments.config import AppConfig
from tests.integration.conftest import Service

pytestmark = pytest.mark.timeout(300)

APP = "sharded"
MODEL = "lacuna-tiny-llada"
RANK_TIMEOUT_S = 4


@dataclass(frozen=True, slots=True)
class Sharded:
    """The application, the processes of its one replica, and what Ray knows of them."""

    base_url: str

    def ranks(self) -> list[dict[str, Any]]:
        """Where the ranks run; nothing while no replica answers."""
        answers = serve.get_deployment_handle(deployment_name(MODEL), APP).broadcast("stats")
        for one in answers.results(timeout_s=30, return_exceptions=True):
            if not isinstance(one, Exception):
                return list(one["ranks"])
        return []

    def pids(self) -> list[int]:
        return [rank["pid"] for rank in self.ranks()]

    def has_new_ranks(self, lost: list[int]) -> bool:
        """Whether a group runs that has none of these processes."""
        pids = self.pids()
        return len(pids) == 2 and not set(pids) & set(lost)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        response = httpx.post(f"{self.base_url}/v1/completions", json={"model": MODEL} | body, timeout=120)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


def live_workers() -> int:
    """Rank actors that live anywhere in the cluster."""
    return sum(
        actor["ActorClassName"] == "RankWorker" and actor["State"] == "ALIVE" for actor in state.actors().values()
    )


def placement_groups() -> list[list[str]]:
    """The nodes of the bundles of every placement group of the application that is not removed."""
    return [
        list(group["bundles_to_node_id"].values())
        for group in ray.util.placement_group_table().values()
        if group["name"].startswith(f"SERVE_REPLICA::{APP}#") and group["state"] != "REMOVED"
    ]


@pytest.fixture(scope="module")
def sharded(service: Service) -> Iterator[Sharded]:
    model = {
        "id": MODEL,
        "engine": {"tensor_parallel_size": 2, "max_num_seqs": 8},
        "num_cpus": 0.25,
        "rank_timeout_s": RANK_TIMEOUT_S,
    }
    config = AppConfig.parse(
        {
            "models": [model],
            "graceful_shutdown_timeout_s": 2,
            "graceful_shutdown_wait_loop_s": 0.1,
            "health_check_period_s": 1,
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves pipes and sockets of its processes open
        serve.run(build_app(config), name=APP, route_prefix="/sharded")
        yield Sharded(f"{service.base_url}/sharded")
        serve.delete(APP)


STRATEGIES: list[dict[str, Any]] = [
    {"diffusion": {"decoder": "threshold", "threshold": 0.8, "cache": "dual"}},
    {"diffusion": {"decoder": "klass"}, "temperature": 0.7, "seed": 5, "top_p": 0.9},
    {"diffusion": {"decoder": "low_confidence", "cfg_scale": 0.5}, "max_tokens": 24},
    {"diffusion": {"decoder": "threshold", "cache": "drift", "smoothing_weight": 0.3}},
    {"diffusion": {"cache": "dual", "initial_length": 32}, "max_tokens": 96},
]


def content(answer: dict[str, Any]) -> list[tuple[str, str, int]]:
    usage = answer["usage"]
    return [(choice["text"], choice["finish_reason"], usage["diffusion"]["forwards"]) for choice in answer["choices"]]


@pytest.mark.parametrize("options", STRATEGIES, ids=["threshold", "sampled", "guided", "drift", "growing"])
def test_two_ranks_answer_as_one(sharded: Sharded, service: Service, options: dict[str, Any]) -> None:
    body = {"prompt": ["What is 17 + 25?", "Convert 3 hours to minutes."], "max_tokens": 48} | options
    alone = Sharded(service.base_url).complete(body)
    assert content(sharded.complete(body)) == content(alone)


def test_a_replica_is_two_processes_in_one_placement_group(sharded: Sharded) -> None:
    leader, follower = sharded.ranks()
    assert (leader["rank"], follower["rank"]) == (0, 1)
    assert leader["pid"] != follower["pid"]
    assert live_workers() == 1
    assert placement_groups() == [[leader["node_id"], follower["node_id"]]]


def test_an_idle_group_stays_together(sharded: Sharded) -> None:
    before = sharded.pids()
    time.sleep(RANK_TIMEOUT_S + 2)  # without heartbeats the follower would have given up
    assert sharded.complete({"prompt": "What is 2 + 3?", "max_tokens": 16})["choices"]
    assert sharded.pids() == before


LONG: dict[str, Any] = {
    "prompt": "What is 17 + 25?",
    "max_tokens": 96,
    "diffusion": {"decoder": "low_confidence", "block_length": 16, "min_tokens": 96},
}
"""A forward per token and a chunk of text per block: time enough to lose a process."""


@pytest.mark.parametrize(
    ("rank", "number"),
    [(1, signal.SIGKILL), (1, signal.SIGSTOP), (0, signal.SIGKILL), (0, signal.SIGSTOP)],
    ids=["a rank dies", "a rank hangs", "the replica dies", "the replica hangs"],
)
def test_clients_do_not_notice_a_lost_process(
    sharded: Sharded, eventually: Callable[..., None], rank: int, number: int
) -> None:
    undisturbed = sharded.complete(LONG)["choices"][0]["text"]
    assert len(undisturbed) > 96, "the text goes on to the end"
    lost = sharded.pids()
    text, hit = "", False
    options = {"model": MODEL, "stream": True}
    with httpx.stream("POST", f"{sharded.base_url}/v1/completions", json=LONG | options, timeout=150) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                text += "".join(choice["text"] for choice in json.loads(line[6:])["choices"])
            if text and not hit:
                os.kill(lost[rank], number)
                hit = True
    assert hit
    assert text == undisturbed
    eventually(lambda: sharded.has_new_ranks(lost), 120.0)
    eventually(lambda: live_workers() == 1 and len(placement_groups()) == 1, 60.0)
    assert not [pid for pid in lost if alive(pid)], "a process of the lost group lives on"


def alive(pid: int) -> bool:
    """Whether the process exists; one that has ended and waits for its parent does not count."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(") ", 1)[1][0] not in "ZX"
    except FileNotFoundError:
        return False


def test_nothing_is_left_of_a_deleted_application(sharded: Sharded, eventually: Callable[..., None]) -> None:
    pids = sharded.pids()
    assert len(pids) == 2
    serve.delete(APP)
    eventually(lambda: live_workers() == 0 and not placement_groups(), 60.0)
    eventually(lambda: not [pid for pid in pids if alive(pid)])
