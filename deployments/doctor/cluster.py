"""A running cluster: can it be joined, is there room, and is everything on its nodes?"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.doctor.finding import Finding, Subject, failure, ok, warning
from deployments.doctor.room import check_room

CONNECT_TIMEOUT_S = 3.0
PROBE_TIMEOUT_S = 30.0
MAX_SKEW_S = 1.0
NODE_GROUP = "ray.io/node-group"
"""Label of nodes that Ray's cluster launcher or KubeRay has started: there an autoscaler may add others."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive. ``group`` is its type in an autoscaled cluster."""

    id: str
    address: str
    total: Mapping[str, float]
    free: Mapping[str, float]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a task on a node found; ``clock_s`` is how far its clock is ahead of this machine's, at least."""

    missing_folders: tuple[str, ...]
    clock_s: float


def check_cluster(subject: Subject) -> Iterator[Finding]:
    """Joins the cluster as a driver that reserves nothing; starts no Ray."""
    address = subject.options.ray_address
    if subject.is_local:
        return
    problem = unreachable(address)
    if problem:
        yield failure("cluster", problem, "correct --ray-address; `ray status` on its head says whether it runs")
        return
    try:
        with _joined(address):
            yield from _examine(subject)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        remedy = "Ray and Python must be those of the cluster; RAY_AUTH_TOKEN where it asks for a token"
        yield failure("cluster", f"{address}: {reason}", remedy)


def unreachable(address: str) -> str:
    """Why nobody answers at host:port, empty where somebody does; Ray itself would try for a minute."""
    if address == "auto":
        return ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return f"{address!r} is not local, auto or host:port"
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        return f"nobody answers at {address}: {error}"
    return ""


def check_probes(probes: Mapping[str, Probe | str]) -> Iterator[Finding]:
    """What was found on each node, or why its task failed."""
    for node, probe in probes.items():
        check = f"node {node}"
        if isinstance(probe, str):
            yield failure(check, probe, "install lacuna-serve there, in the Python that runs Ray")
        elif probe.missing_folders:
            missing = ", ".join(probe.missing_folders)
            yield failure(check, f"no checkpoint at {missing}", "put it on every node, or on a shared file system")
        elif abs(probe.clock_s) > MAX_SKEW_S:
            yield warning(check, f"its clock is {probe.clock_s:+.1f} s off", "synchronise the clocks (NTP)")
        else:
            yield ok(check, "lacuna-serve and every checkpoint are there")


def read_nodes() -> list[Node]:
    """Of the cluster that this process has joined."""
    import ray
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()  # type: ignore[no-untyped-call]
    return [
        Node(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            total=node["Resources"],
            free=free.get(node["NodeID"], {}),
            group=node["Labels"].get(NODE_GROUP, ""),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def probe_nodes(nodes: Sequence[Node], folders: Sequence[str]) -> dict[str, Probe | str]:
    """Run a task that reserves nothing on every node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look_around)
    started = time.time()
    running = {
        node.id: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(folders)
        for node in nodes
    }
    ray.wait(list(running.values()), num_returns=len(running), timeout=PROBE_TIMEOUT_S)
    return {f"{node.address} {node.id[:6]}": _probed(running[node.id], started) for node in nodes}


def look_around(folders: Sequence[str]) -> tuple[list[str], float]:
    """Runs on a node: folders that are missing there, and its time. That this module can be imported there is the
    check that the package is installed."""
    from pathlib import Path

    return [folder for folder in folders if not Path(folder).is_dir()], time.time()


def _examine(subject: Subject) -> Iterator[Finding]:
    nodes = read_nodes()
    yield ok("cluster", f"nodes: {len(nodes)}; {', '.join(_amounts(nodes, name) for name in ('CPU', 'GPU'))}")
    if subject.config is None:
        return
    yield from check_room(
        subject.config,
        [node.free for node in nodes],
        [node.total for node in nodes],
        may_grow=any(node.group for node in nodes),
    )
    folders = [str(model.checkpoint()) for model in subject.config.models if model.path]
    yield from check_probes(probe_nodes(nodes, folders))


def _amounts(nodes: Sequence[Node], name: str) -> str:
    free = sum(node.free.get(name, 0.0) for node in nodes)
    total = sum(node.total.get(name, 0.0) for node in nodes)
    return f"{free:g} of {total:g} {name} free"


def _probed(reference: Any, started: float) -> Probe | str:
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        missing, clock = ray.get(reference, timeout=0.1)
    except GetTimeoutError:
        return f"a task did not end within {PROBE_TIMEOUT_S:g} s"
    except (RayError, ImportError) as error:
        return str(error).strip().splitlines()[-1]
    ahead, behind = clock - time.time(), started - clock
    return Probe(tuple(missing), max(ahead, 0.0) - max(behind, 0.0))


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        if is_ours:
            ray.shutdown()
