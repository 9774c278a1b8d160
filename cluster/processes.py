"""Processes of one machine that work together as torchrun's would: a rank each, and one address to meet at."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from cluster.nodes import free_port

POLL_S = 0.1
GRACE_S = 4.0
"""For those that are left after a failure: to end by themselves, and again when they are asked to."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Failure:
    """The first process that failed. ``signal`` is the number of the one that ended it, 0: it ended by itself, with
    ``status``. Of several at a time one that a signal ended, since its death is why the others failed, else one with
    the highest status, as those have that tell the user's mistake."""

    rank: int
    status: int
    signal: int

    @classmethod
    def first(cls, statuses: Sequence[int | None]) -> Failure | None:
        """From what ``Popen.poll`` returned for each rank: None while it runs, negative for a signal."""
        failed = {rank: status for rank, status in enumerate(statuses) if status}
        if not failed:
            return None
        rank, status = min(failed.items(), key=lambda item: (item[1] > 0, -item[1]))
        return cls(rank, status, 0) if status > 0 else cls(rank, 128 - status, -status)

    def __str__(self) -> str:
        if not self.signal:
            return f"worker {self.rank} ended with status {self.status}"
        hint = " (as when memory runs out)" if self.signal == signal.SIGKILL else ""
        return f"worker {self.rank} was ended by {signal.Signals(self.signal).name}{hint}"


def run_processes(command: Sequence[str], number: int) -> Failure | None:
    """Run a command once per rank and wait for all. After the first failure, which is returned, the others are ended.

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
        failure = _wait(processes)
        if failure is not None:
            _end(processes)
    return failure


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> Failure | None:
    """Until all are done, or the first has failed."""
    while True:
        statuses = [process.poll() for process in processes]
        failure = Failure.first(statuses)
        if failure is not None or None not in statuses:
            return failure
        time.sleep(POLL_S)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let those that are ending by themselves (they miss the one that failed) do so; then ask, then force."""
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
