"""The service as a user starts it: a process of its own, on free ports, ended as Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server process that is ready; ``greeting`` is what it has printed so far."""

    http_port: int
    grpc_port: int
    greeting: str

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"


@contextlib.contextmanager
def running(command: list[str], ready: str) -> Iterator[str]:
    """Run a command until the block ends; yields its output up to the line that holds ``ready``."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "RAY_ADDRESS": "local", "RAY_worker_niceness": "0"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_heed_interrupts,
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield _until(lines, ready, process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
        assert process.stdout is not None
        process.stdout.close()


def _heed_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError):  # closed while a child of the process still held it
        for line in process.stdout:
            lines.put(line)
    lines.put(None)


def _until(lines: queue.SimpleQueue[str | None], ready: str, process: subprocess.Popen[str]) -> str:
    seen: list[str] = []
    deadline = time.monotonic() + START_TIMEOUT_S
    while ready not in "".join(seen[-1:]):
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            line = None
        if line is None:
            process.kill()
            pytest.fail(f"the server did not start; it said:\n{''.join(seen)}")
        seen.append(line)
    return "".join(seen)


@pytest.fixture(scope="package")  # ends before the tests of other folders begin
def server() -> Iterator[Server]:
    """`lacuna serve` with both embedded models."""
    http_port, grpc_port = free_port(), free_port()
    command = [str(BIN / "lacuna"), "serve", "--port", str(http_port), "--grpc-port", str(grpc_port)]
    with running([*command, "--set", "graceful_shutdown_timeout_s=2"], ready="Press Ctrl-C") as greeting:
        yield Server(http_port, grpc_port, greeting)
