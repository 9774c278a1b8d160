"""`lacuna serve` on a cluster of `python -m cluster.local` whose nodes follow the demand: a request wakes a replica,
which has no place, which makes the node autoscaler start a node; when nobody asks any more, both go."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from deployments.config import EMBEDDED_MODELS
from tests.e2e.conftest import BIN, ROOT, running
from tests.helpers.processes import alive, descendants
from tests.ports import free_port

MODEL = {
    "id": EMBEDDED_MODELS[0],
    "num_cpus": 1,
    "autoscaling": {
        "min_replicas": 0,
        "initial_replicas": 0,
        "max_replicas": 1,
        "downscale_to_zero_delay_s": 2,
        "look_back_s": 2,
    },
}


class LocalCluster:
    """The command, and what it says of its nodes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """The next line that matches."""
        deadline = time.monotonic() + timeout_s
        seen = []
        while True:
            try:
                seen.append(self._lines.get(timeout=max(deadline - time.monotonic(), 0.0)))
            except queue.Empty:
                pytest.fail(f"no line like {pattern!r} within {timeout_s} s, but:\n{''.join(seen)}")
            if found := re.search(pattern, seen[-1]):
                return found

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)


@contextlib.contextmanager
def local_cluster(*options: str) -> Iterator[LocalCluster]:
    command = [sys.executable, "-m", "cluster.local", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield LocalCluster(process)
        finally:
            started = descendants(process.pid)
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert process.returncode == 0
    assert started, "the cluster ran until it was interrupted"
    deadline = time.monotonic() + 10
    while (left := alive(started)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


@pytest.mark.timeout(400)
def test_a_request_makes_a_node_come_and_silence_makes_it_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "0.5")
    ports = ["--port", str(http_port := free_port()), "--grpc-port", str(free_port())]
    settings = ["--set", f"models={json.dumps([MODEL])}", "--set", "keepalive_s=1"]
    settings += ["--set", "graceful_shutdown_timeout_s=2"]
    with local_cluster("--nodes", "1", "--max-nodes", "2", "--idle-head", "--idle", "6") as cluster:
        address = cluster.wait_for(r"Try: lacuna serve --ray-address (\S+) --min-replicas 0 --max-replicas 1$", 90)[1]
        command = [str(BIN / "lacuna"), "serve", "--ray-address", address, *ports, *settings]
        with running(command, ready="Press Ctrl-C"):
            cluster.wait_for("nodes: 1, waiting for room: 0", 20)
            lines = streamed_lines(f"http://127.0.0.1:{http_port}")
            cluster.wait_for("nodes: 1, waiting for room: [1-9]", 1)
            cluster.wait_for("nodes: 2, waiting for room: 0", 10)
            first_data = next(index for index, line in enumerate(lines) if line.startswith("data: "))
            assert ": keep-alive" in lines[:first_data], "the client hears of the server while the node starts"
            assert lines[-1] == "data: [DONE]"
            cluster.wait_for("nodes: 1, waiting for room: 0", 90)


def streamed_lines(base_url: str) -> list[str]:
    body = {"prompt": "2 + 3 =", "max_tokens": 8, "stream": True}
    with (
        httpx.Client(base_url=base_url, timeout=200) as client,
        client.stream("POST", "/v1/completions", json=body) as response,
    ):
        assert response.status_code == 200
        return [line for line in response.iter_lines() if line]
