"""A replica over two nodes that loses one of them, on a Ray of its own: to be run in a process of its own."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from cluster.fixed import LocalCluster, local_cluster
from cluster.nodes import NodeShape
from tests.helpers.processes import alive, descendants
from tests.ports import free_port

MODEL = "lacuna-tiny-llada"
NUM_SLOTS = 4
SETTINGS: dict[str, Any] = {
    "models": [
        {
            "id": MODEL,
            "engine": {"tensor_parallel_size": 2, "max_num_seqs": NUM_SLOTS},
            "num_cpus": 1,
            "placement_strategy": "STRICT_SPREAD",
            "rank_timeout_s": 4,
        }
    ],
    "graceful_shutdown_timeout_s": 2,
    "graceful_shutdown_wait_loop_s": 0.1,
    "health_check_period_s": 1,
}
PROMPT = "What is 17 + 25?"
LONG: dict[str, Any] = {
    "model": MODEL,
    "prompt": PROMPT,
    "max_tokens": 96,
    "diffusion": {"decoder": "low_confidence", "block_length": 16, "min_tokens": 96},
}
"""A forward per token and a chunk of text per block: time enough to lose a node."""
PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What Ray knows of the application: its one replica's ranks, actors, placement groups, and its free slots."""

    nodes: list[str]
    pids: list[int]
    num_workers: int
    groups: list[list[str]]
    num_free_slots: int


@dataclass(slots=True)
class Losses:
    """What happened. Seconds are counted from the start of the application, or from the loss of a node."""

    announced: list[str] = field(default_factory=list)
    announced_after_s: float = 0.0
    undisturbed: str = ""
    text: str = ""
    lost_node: str = ""
    detected_after_s: float = 0.0
    refusal: str = ""
    before: Snapshot | None = None
    after: Snapshot | None = None
    survivors: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def lose_a_node() -> Losses:
    """Start on a head alone, add the two nodes that are asked for, lose that of rank 1 while a stream runs, and add a
    third one once a client without much time has been answered."""
    os.environ |= {"RAY_health_check_period_ms": "500", "RAY_health_check_initial_delay_ms": "500"}
    losses = Losses()
    with local_cluster(1, shape=NodeShape(0)) as cluster, _served(cluster, losses) as base_url:
        losses.undisturbed = _text(base_url)
        losses.before = _snapshot()
        processes = descendants(os.getpid())
        _stream_through_a_loss(cluster, base_url, losses)
        _until(lambda: (found := _snapshot()) is not None and len(found.groups) == 1 and found.num_workers == 1)
        losses.after = _snapshot()
        processes |= descendants(os.getpid())
    losses.left = _left(processes)
    return losses


@contextmanager
def _served(cluster: LocalCluster, losses: Losses) -> Iterator[str]:
    """The application, which starts in a thread beside this one: only a process's main thread can add nodes."""
    from deployments.config import AppConfig
    from deployments.launch import ServerOptions, serving

    options = ServerOptions(http_port=free_port(), grpc_port=free_port(), ray_address=cluster.address)
    asked = threading.Event()
    started_s = time.monotonic()

    def announce(text: str) -> None:
        losses.announced.append(text)
        asked.set()

    service = serving(AppConfig.parse(SETTINGS), options, announce)
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(service.__enter__)
        starting.add_done_callback(lambda _: asked.set())
        assert asked.wait(PATIENCE_S), "nobody has said that nodes are missing"
        losses.announced_after_s = time.monotonic() - started_s
        for _ in range(2):
            cluster.add_node()
        starting.result()
        try:
            yield f"http://127.0.0.1:{options.http_port}"
        finally:
            thread.submit(service.__exit__, None, None, None).result()


def _stream_through_a_loss(cluster: LocalCluster, base_url: str, losses: Losses) -> None:
    assert losses.before is not None
    losses.lost_node = losses.before.nodes[1]
    with httpx.stream("POST", f"{base_url}/v1/completions", json=LONG | {"stream": True}, timeout=150) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                losses.text += "".join(choice["text"] for choice in json.loads(line[6:])["choices"])
            if losses.text and not losses.refusal:
                losses.detected_after_s = _kill(cluster, losses.lost_node)
                losses.survivors = [one.node_id for one in cluster.cluster.worker_nodes]
                losses.refusal = _refusal(base_url)
                cluster.add_node()


def _kill(cluster: LocalCluster, node_id: str) -> float:
    """End a node as a power cut does; seconds until the ranks of its replica are gone."""
    (node,) = [one for one in cluster.cluster.worker_nodes if one.node_id == node_id]
    cluster.cluster.remove_node(node, allow_graceful=False)
    killed_s = time.monotonic()
    _until(lambda: _num_workers() == 0)
    return time.monotonic() - killed_s


def _text(base_url: str) -> str:
    response = httpx.post(f"{base_url}/v1/completions", json=LONG, timeout=60)
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["text"]
    return text


def _refusal(base_url: str) -> str:
    """What a client learns whose requests have little time, while nothing can answer them: at first perhaps only that,
    since the router has yet to see that the replica is gone."""
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 8, "timeout_ms": 5000}
    text = ""
    for _ in range(6):
        text = httpx.post(f"{base_url}/v1/completions", json=body, timeout=60).text
        if "missing" in text:
            break
    return text


def _snapshot() -> Snapshot | None:
    """None while no replica answers."""
    import ray
    from ray import serve

    from deployments.app import deployment_name
    from deployments.launch import APP_NAME

    answers = serve.get_deployment_handle(deployment_name(MODEL), APP_NAME).broadcast("stats")
    stats = [one for one in answers.results(timeout_s=30, return_exceptions=True) if not isinstance(one, Exception)]
    if not stats:
        return None
    groups = [
        list(group["bundles_to_node_id"].values())
        for group in ray.util.placement_group_table().values()
        if group["state"] != "REMOVED"
    ]
    ranks = stats[0]["ranks"]
    return Snapshot(
        nodes=[rank["node_id"] for rank in ranks],
        pids=[rank["pid"] for rank in ranks],
        num_workers=_num_workers(),
        groups=groups,
        num_free_slots=stats[0]["num_free_slots"],
    )


def _num_workers() -> int:
    from ray._private import state

    actors = state.actors().values()
    return sum(actor["ActorClassName"] == "RankWorker" and actor["State"] == "ALIVE" for actor in actors)


def _left(processes: dict[int, str]) -> list[str]:
    """Those that still run; what has been killed may take a moment."""
    deadline = time.monotonic() + 10
    while (left := alive(processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.1)
