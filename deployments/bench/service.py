"""A service that is started to be measured: ``lacuna serve`` of this tree or another, in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.bench.ports import two_free_ports
from engine.bench.revisions import this_tree
from engine.errors import ConfigError

START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 90.0
READY = "Press Ctrl-C"


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service listens; ``pid`` is the process that has started all others."""

    http_port: int
    grpc_port: int
    pid: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"


@contextmanager
def started_service(
    words: Sequence[str], tree: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """``lacuna serve WORDS`` with the code of ``tree``, ready to answer, on free ports and with a Ray of its own.

    ConfigError holds what it said when it does not start.
    """
    tree = tree or this_tree()
    http_port, grpc_port = two_free_ports()
    ports = ["--port", str(http_port), "--grpc-port", str(grpc_port)]
    command = [sys.executable, "-c", "from deployments.cli import main; main()", "serve", *words, *ports]
    process = subprocess.Popen(
        [*command, "--set", "graceful_shutdown_timeout_s=1"],
        cwd=tree,
        env=os.environ | _environment(tree) | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_heed_interrupts,
    )
    try:
        _wait_for(process, READY)
        yield Service(http_port, grpc_port, process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(tree: Path) -> dict[str, str]:
    """The tree's code goes before an installed one; workers are no nicer than they are in operation."""
    return {"PYTHONPATH": str(tree), "RAY_worker_niceness": "0", "PYTHONUNBUFFERED": "1"}


def _heed_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read until the line that holds ``text``; what follows is read by a thread, so that the process never blocks."""
    assert process.stdout is not None
    timer = threading.Timer(START_TIMEOUT_S, process.kill)
    timer.start()
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            timer.cancel()
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return
    timer.cancel()
    raise ConfigError(f"the service did not start; it said:\n{''.join(seen)}")
