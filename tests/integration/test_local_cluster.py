"""cluster/local.py: several raylets on one machine, as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.processes import alive, descendants

COUNT = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
resources = ray.cluster_resources()
print(sum(node["Alive"] for node in ray.nodes()), int(resources["CPU"]), int(resources["gpuish"]))
"""


@pytest.mark.timeout(240)
def test_nodes_come_up_and_nothing_of_them_is_left_behind() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "cluster.local", "--nodes", "3", "--cpus", "2", "--resources", '{"gpuish": 4}']
    command += ["--idle-head"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "Try: " in line)
            address = line.split()[-1]
            assert line == f"Try: lacuna serve --ray-address {address}\n"
            counted = subprocess.run(
                [sys.executable, "-c", COUNT, address], cwd=root, capture_output=True, text=True, check=True
            )
            assert counted.stdout.split() == ["3", "4", "8"], "nodes, and the cores and gpuish of all but the head"
            started = descendants(process.pid)
            assert sum("raylet/raylet" in one for one in alive(started)) == 3
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert process.returncode == 0
    deadline = time.monotonic() + 10
    while (left := alive(started)) and time.monotonic() < deadline:
        time.sleep(0.1)  # killed, but not yet buried by init
    assert left == []
