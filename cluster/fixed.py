"""A Ray cluster of a fixed number of nodes on one machine: each is a raylet of its own, as on separate hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.nodes import NodeShape

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """``address`` is what ``ray.init`` and ``--ray-address`` take."""

    address: str
    cluster: Cluster

    def add_node(self, num_cpus: float = 1) -> None:
        """One more node, ready when this returns."""
        self.cluster.add_node(num_cpus=num_cpus)
        self.cluster.wait_for_nodes()


@contextmanager
def local_cluster(
    num_nodes: int = 2, cpus_per_node: int = 1, *, shape: NodeShape | None = None, dashboard_port: int | None = None
) -> Iterator[LocalCluster]:
    """A cluster that ends with the block, the head included in ``num_nodes``. It touches no other Ray of this machine.

    ``shape`` replaces ``cpus_per_node``; without a ``dashboard_port`` there is no dashboard.
    """
    if num_nodes < 1:
        raise ValueError(f"num_nodes must be at least 1, got {num_nodes}")
    from ray.cluster_utils import Cluster

    shape = shape or NodeShape(cpus_per_node)
    head = shape.of_head()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": head.cpus,
            "resources": dict(head.resources),
            "include_dashboard": dashboard_port is not None,
            "dashboard_port": dashboard_port,
        },
    )
    try:
        for _ in range(num_nodes - 1):
            cluster.add_node(num_cpus=shape.cpus, resources=dict(shape.resources))
        cluster.wait_for_nodes()
        yield LocalCluster(cluster.address, cluster)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
