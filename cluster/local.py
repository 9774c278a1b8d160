"""A Ray cluster of several nodes on one machine: each node is a raylet of its own, as on separate hosts.

python -m cluster.local --nodes 2          # then: lacuna serve --ray-address <the printed address>
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
def local_cluster(num_nodes: int = 2, cpus_per_node: float = 1) -> Iterator[LocalCluster]:
    """A cluster that ends with the block. It touches no other Ray of this machine."""
    if num_nodes < 1:
        raise ValueError(f"num_nodes must be at least 1, got {num_nodes}")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": cpus_per_node, "include_dashboard": False, "dashboard_port": None},
    )
    try:
        for _ in range(num_nodes - 1):
            cluster.add_node(num_cpus=cpus_per_node)
        cluster.wait_for_nodes()
        yield LocalCluster(cluster.address, cluster)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def main() -> None:
    """Run a cluster until interrupted."""
    parser = argparse.ArgumentParser(description="A Ray cluster of several nodes on this machine.")
    parser.add_argument("--nodes", type=int, default=2, help="nodes, the head included (default: 2)")
    parser.add_argument("--cpus", type=float, default=1, help="CPU cores that each node offers (default: 1)")
    arguments = parser.parse_args()
    if arguments.nodes < 1:
        parser.error("--nodes must be at least 1")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with local_cluster(arguments.nodes, arguments.cpus) as cluster:
        print(f"{arguments.nodes} nodes at {cluster.address}\nTry: lacuna serve --ray-address {cluster.address}")
        stopped.wait()


if __name__ == "__main__":
    main()
