"""Processes of one machine that work together as torchrun's would: a rank each, and one address to meet at."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from cluster.nodes import free_port

POLL_S = 0.1
GRACE_S = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_processes(command: Sequence[str], number: int) -> int:
    """Run a command once per rank and wait for all. Returns 0, or the status of the first that failed (128 + signal
    for one that a signal ended), after which the others are ended.

    SIGINT and SIGTERM are passed on once to each process, which decides what to do.
    """
    shared = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_SIZE": str(number)},
            start_new_session=True,
        )
        for rank in range(number)
    ]
    with _passed_on(processes):
        status = _wait(processes)
        if status:
            _end(processes)
    return status


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until all are done, or the first has failed."""
    while True:
        statuses = [process.poll() for process in processes]
        failed = next((status for status in statuses if status), 0)
        if failed:
            return failed if failed > 0 else 128 - failed
        if None not in statuses:
            return 0
        time.sleep(POLL_S)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let those that are ending by themselves (a signal went to all) do so; then ask, then force."""
    for end in (lambda process: None, subprocess.Popen.terminate, subprocess.Popen.kill):
        for process in processes:
            if process.poll() is None:
                end(process)
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(POLL_S)


@contextmanager
def _passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
