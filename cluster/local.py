"""A Ray cluster of several nodes on this machine, until it is interrupted.

python -m cluster.local --nodes 3                                  # three nodes, as on separate hosts
python -m cluster.local --nodes 1 --max-nodes 3 --idle-head        # nodes come and go with the demand, as on a cloud
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from cluster.fixed import LocalCluster, local_cluster
from cluster.nodes import ClusterState, NodeShape, free_port, parse_resources, read_state

__all__ = ["LocalCluster", "local_cluster", "main"]

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """``max_nodes`` above ``nodes``: so many nodes at most, following the demand."""

    nodes: int
    max_nodes: int
    shape: NodeShape
    idle_s: float
    dashboard_port: int | None

    @property
    def is_elastic(self) -> bool:
        return self.max_nodes > self.nodes


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with suppress(KeyboardInterrupt):
        try:
            with _running(options) as address:
                print(greeting(options, address), flush=True)
                _report(address, show_changes=options.is_elastic)
        except (RuntimeError, TimeoutError) as error:
            print(f"cluster.local: {error}", file=sys.stderr)
            return 1
    return 0


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Exits with a message where an option is wrong."""
    parser = argparse.ArgumentParser(prog="python -m cluster.local", description="A Ray cluster on this machine.")
    parser.add_argument("--nodes", type=int, help="nodes at the start, the head included (default: 2; 1 if elastic)")
    parser.add_argument("--max-nodes", type=int, help="start nodes on demand up to so many, and end idle ones")
    parser.add_argument("--cpus", type=int, default=1, help="CPU cores that each node offers (default: 1)")
    parser.add_argument("--resources", default="{}", help="other resources of each node, e.g. '{\"gpuish\": 2}'")
    parser.add_argument("--idle-head", action="store_true", help="the head offers nothing and so takes no work")
    parser.add_argument("--idle", type=float, default=60, help="seconds until an idle node is ended (default: 60)")
    parser.add_argument("--dashboard", action="store_true", help="run Ray's dashboard too")
    found = parser.parse_args(arguments)
    nodes = found.nodes if found.nodes is not None else 2 if found.max_nodes is None else 1
    if nodes < 1:
        parser.error(f"--nodes must be at least 1, got {nodes}")
    if found.max_nodes is not None and found.max_nodes <= nodes:
        parser.error(f"--max-nodes must be more than the {nodes} of --nodes, got {found.max_nodes}")
    if found.idle <= 0:
        parser.error(f"--idle must be above 0, got {found.idle:g}")
    if found.idle_head and max(nodes, found.max_nodes or 0) == 1:
        parser.error("--idle-head with one node: nothing could run")
    try:
        shape = NodeShape(found.cpus, parse_resources(found.resources), found.idle_head)
    except ValueError as error:
        parser.error(str(error))
    return Options(nodes, found.max_nodes or nodes, shape, found.idle, free_port() if found.dashboard else None)


def greeting(options: Options, address: str) -> str:
    """What there is, and what to type now."""
    count = f"{options.nodes} to {options.max_nodes} nodes" if options.is_elastic else f"{options.nodes} nodes"
    lines = [f"{count} at {address} ({options.shape.described})"]
    if options.dashboard_port is not None:
        lines.append(f"Dashboard: http://127.0.0.1:{options.dashboard_port}")
    scale = f" --min-replicas 0 --max-replicas {options.max_nodes - options.shape.idle_head}"
    lines.append(f"Try: lacuna serve --ray-address {address}{scale if options.is_elastic else ''}")
    return "\n".join([*lines, "Press Ctrl-C to end all of them."])


@contextmanager
def _running(options: Options) -> Iterator[str]:
    if not options.is_elastic:
        with local_cluster(options.nodes, shape=options.shape, dashboard_port=options.dashboard_port) as cluster:
            yield cluster.address
        return
    from cluster.elastic import elastic_cluster

    with elastic_cluster(
        options.nodes, options.max_nodes, options.shape, options.idle_s, options.dashboard_port
    ) as address:
        yield address


def _report(address: str, *, show_changes: bool) -> None:
    """Until interrupted; says when nodes come or go and when work waits for one."""
    shown: ClusterState | None = None
    while True:
        if show_changes and (state := read_state(address)) != shown:
            print(f"{time.strftime('%H:%M:%S')} nodes: {state.nodes}, waiting for room: {state.waiting}", flush=True)
            shown = state
        time.sleep(POLL_S)


def _interrupt(number: int, frame: object) -> None:
    """The first signal ends the cluster; later ones must not cut that short."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
