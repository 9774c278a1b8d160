"""A Ray cluster on one machine whose nodes come and go with the demand: Ray's own node autoscaler over its fake nodes.

What cannot be placed (an engine replica, above all) makes the autoscaler start a node, and a node that has been idle
for a while is ended, as on a cloud. ``python -m cluster.local --max-nodes 3`` runs one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.util import get_node_ip_address

from cluster.nodes import NodeShape, free_port, read_state

HEAD_NODE_ID = "f" * 51 + "00000"
"""Ray's fake nodes have ids of this form."""

COMMANDS = (
    "initialization",
    "setup",
    "head_setup",
    "worker_setup",
    "head_start_ray",
    "worker_start_ray",
)
"""What the autoscaler would run on real hosts."""

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 10.0


def autoscaling_config(
    address: str, num_nodes: int, max_nodes: int, shape: NodeShape, idle_s: float
) -> dict[str, object]:
    """A cluster configuration: a head, ``num_nodes - 1`` others, and more of them up to ``max_nodes`` in all."""
    return {
        "cluster_name": "elastic",
        "max_workers": max_nodes - 1,
        "idle_timeout_minutes": idle_s / 60,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "disable_node_updaters": True,
            "head_node_id": HEAD_NODE_ID,
            "gcs_address": address,
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "cluster_synced_files": [],
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in COMMANDS},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": _resources(shape.of_head()), "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": _resources(shape),
                "node_config": {},
                "min_workers": num_nodes - 1,
                "max_workers": max_nodes - 1,
            },
        },
    }


@contextmanager
def elastic_cluster(
    num_nodes: int = 1,
    max_nodes: int = 2,
    shape: NodeShape | None = None,
    idle_s: float = 60,
    dashboard_port: int | None = None,
) -> Iterator[str]:
    """The address of a cluster that ends with the block. Numbers of nodes include the head; ``num_nodes`` are there
    when the block begins. It touches no other Ray of this machine. RuntimeError when it does not start."""
    if not 1 <= num_nodes < max_nodes:
        raise ValueError(f"max_nodes must be more than num_nodes, and that at least 1, got {max_nodes} and {num_nodes}")
    shape = shape or NodeShape()
    port = free_port()
    address = f"{get_node_ip_address()}:{port}"  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory(prefix="lacuna-elastic-", ignore_cleanup_errors=True) as folder:
        path, log_path = Path(folder) / "cluster.json", Path(folder) / "head.log"
        path.write_text(json.dumps(autoscaling_config(address, num_nodes, max_nodes, shape, idle_s)), encoding="utf-8")
        command = _head_command(port, path, shape.of_head(), dashboard_port)
        with log_path.open("w") as log:
            head = subprocess.Popen(command, env=_environment(), stdout=log, stderr=log, start_new_session=True)
            try:
                _wait_until_up(head, address, num_nodes, log_path)
                yield address
            finally:
                _stop(head)


def _resources(shape: NodeShape) -> dict[str, float]:
    return {"CPU": shape.cpus, **shape.resources}


def _head_command(port: int, config: Path, head: NodeShape, dashboard_port: int | None) -> list[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += [f"--num-cpus={head.cpus}", f"--resources={json.dumps(dict(head.resources))}"]
    command += [f"--include-dashboard={'false' if dashboard_port is None else 'true'}"]
    command += [] if dashboard_port is None else [f"--dashboard-port={dashboard_port}"]
    return [*command, f"--autoscaling-config={config}"]


def _environment() -> dict[str, str]:
    return os.environ | {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE_ID,
        "RAY_CLOUD_INSTANCE_ID": HEAD_NODE_ID,
        "RAY_NODE_TYPE_NAME": "ray.head.default",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "disabled",  # `ray start` asks for a token where an earlier Ray has left one, drivers do not
        "RAY_worker_niceness": "0",
    }


def _wait_until_up(head: subprocess.Popen[bytes], address: str, num_nodes: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while "Ray runtime started" not in log.read_text(errors="replace") or read_state(address).nodes < num_nodes:
        if head.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the cluster at {address} did not start: {log.read_text(errors='replace')}")
        time.sleep(0.2)


def _stop(head: subprocess.Popen[bytes]) -> None:
    """End the head and everything that it has started; they are one process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(head.pid, number)
            head.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
