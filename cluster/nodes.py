"""What the nodes of a cluster on this machine offer, and how many there are."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

RESERVED = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources that Ray counts itself."""


@dataclass(frozen=True, slots=True)
class NodeShape:
    """CPU cores and other resources of each node; none is checked against what the machine has. ``idle_head``: the head
    offers nothing, as on a cluster whose head takes no work."""

    cpus: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    idle_head: bool = False

    def __post_init__(self) -> None:
        if self.cpus < 0:
            raise ValueError(f"a node's CPU cores must not be below 0, got {self.cpus}")
        for name, amount in self.resources.items():
            if name in RESERVED:
                raise ValueError(f"{name} is not a resource to be invented; CPU cores have an option of their own")
            if amount <= 0:
                raise ValueError(f"resource {name!r} must be above 0, got {amount}")

    @property
    def described(self) -> str:
        named = ", ".join(f"{amount:g} {name}" for name, amount in {"CPU": self.cpus, **self.resources}.items())
        return f"{named} each{', the head none' if self.idle_head else ''}"

    def of_head(self) -> NodeShape:
        return NodeShape(0) if self.idle_head else self


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Nodes that are alive, the head included, and replicas, actors and tasks that no node has room for."""

    nodes: int
    waiting: int


def parse_resources(text: str) -> dict[str, float]:
    """``{"gpuish": 2}``; ValueError says what it should be."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'resources are JSON, e.g. {{"gpuish": 2}}: {error}') from None
    if not isinstance(value, dict):
        raise ValueError(f'resources are numbers by name, e.g. {{"gpuish": 2}}, got {text}')
    for name, amount in value.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            raise ValueError(f"resource {name!r} must be a number, got {amount!r}")
    return value


def read_state(address: str) -> ClusterState:
    """Ask the cluster's head, without joining. RuntimeError when it is gone."""
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.exceptions import RayError

    try:
        status = get_cluster_status(address)
    except RayError as error:
        raise RuntimeError(f"the head at {address} does not answer: {error}") from error
    demands = status.resource_demands
    single = sum(bundle.count for one in demands.ray_task_actor_demand for bundle in one.bundles_by_count)
    groups = sum(bundle.count for one in demands.placement_group_demand for bundle in one.bundles_by_count)
    return ClusterState(len(status.active_nodes) + len(status.idle_nodes), single + groups)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
