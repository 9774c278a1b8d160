"""cluster/local.py: several raylets on one machine, as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

COUNT_NODES = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()), int(ray.cluster_resources()["CPU"]))
"""


@pytest.mark.timeout(240)
def test_two_nodes_come_up_and_go_away() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "cluster.local", "--nodes", "2", "--cpus", "1"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if " nodes at " in line)
            address = line.split()[-1]
            counted = subprocess.run(
                [sys.executable, "-c", COUNT_NODES, address], cwd=root, capture_output=True, text=True, check=True
            )
            assert counted.stdout.split() == ["2", "2"]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert process.returncode == 0
