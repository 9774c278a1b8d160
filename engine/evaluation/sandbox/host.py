"""The outside of the sandbox: starts a process for each program, watches it, and ends it with all that it started."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import engine
from engine.errors import ConfigError

logger = logging.getLogger(__name__)

ROOT = Path(engine.__file__).parents[1]
LAUNCH = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from engine.evaluation.sandbox.runner import main; main()"
PYTHON_FLAGS = ("-P", "-s", "-S", "-B", "-X", "utf8")
"""No folder of the user's, no installed packages, nothing written beside modules."""
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
"""All that the process sees; the fixed seed makes a verdict repeatable."""
LOOK_EVERY_S = 0.02
CLOCK_PER_CPU = 3
"""Time on the clock for each second of the limit: a busy machine must not fail a right program."""
MAX_FILES = 256
MAX_REPORT_BYTES = 1 << 16
PROTECTIONS = ("files", "network", "privileges", "processes")

Status = Literal["passed", "wrong", "error", "exit", "memory", "time", "disk", "killed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use. ``seconds`` of CPU, and three times that on the clock; ``disk_bytes`` in all, in files
    of at most ``file_bytes``."""

    seconds: int = 5
    memory_bytes: int = 1 << 30
    file_bytes: int = 8 << 20
    disk_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program. ``detail`` is its exception or what ended it; ``protections`` are those that held."""

    status: Status
    detail: str = ""
    protections: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def run_program(solution: str, check: str, limits: Limits | None = None) -> Outcome:
    """Run ``solution``, then ``check`` in the same namespace; passed when both end without an exception.

    Blocks for little more than three times the limit of seconds, and is safe to call from several threads.
    ConfigError when the sandbox itself can't start: that says nothing about the program.
    """
    limits = limits or Limits()
    mark = secrets.token_hex(16)
    job = {
        "solution": solution,
        "check": check,
        "mark": mark,
        "cpu_seconds": limits.seconds,
        "memory_bytes": limits.memory_bytes,
        "file_bytes": limits.file_bytes,
    }
    with tempfile.TemporaryDirectory(prefix="lacuna-sandbox-", ignore_cleanup_errors=True) as folder:
        process = _start(job, folder)
        ended_by = _watch(process, Path(folder), limits)
        assert process.stdout is not None
        lines = _read(process.stdout)
    return _outcome(lines, mark, ended_by, process.returncode)


def missing_protections() -> tuple[str, ...]:
    """What this machine's kernel does not hold a program back from. ConfigError when the sandbox does not work."""
    outcome = run_program("answer = 42", "assert answer == 42")
    if not outcome.passed:
        raise ConfigError(
            f"The sandbox does not work here: a right program ends with {outcome.detail!r}.", "allow_code"
        )
    return tuple(name for name in PROTECTIONS if name not in outcome.protections)


def _start(job: Mapping[str, object], folder: str) -> subprocess.Popen[bytes]:
    """In a session of its own, which is also the process group that ends with it."""
    with tempfile.TemporaryFile() as text:
        text.write(json.dumps(job).encode())
        text.seek(0)
        try:
            return subprocess.Popen(
                [sys.executable, *PYTHON_FLAGS, "-c", LAUNCH],
                stdin=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(f"The sandbox cannot start {sys.executable}: {error}.", "allow_code") from error


def _watch(process: subprocess.Popen[bytes], folder: Path, limits: Limits) -> Status | None:
    """Wait for the end, or make it; returns which of the host's own limits was passed."""
    deadline = time.monotonic() + CLOCK_PER_CPU * limits.seconds
    try:
        while True:
            try:
                process.wait(LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    return "time"
                if _is_full(folder, limits):
                    return "disk"
            else:
                return None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            logger.debug("nothing is left of sandbox %d", process.pid)
        process.wait()


def _is_full(folder: Path, limits: Limits) -> bool:
    """Too many bytes or files. What can't be looked at is gone already."""
    try:
        with os.scandir(folder) as found:
            entries = list(islice(found, MAX_FILES + 1))
        sizes = [512 * entry.stat(follow_symlinks=False).st_blocks for entry in entries]
    except OSError:
        return False
    return len(entries) > MAX_FILES or sum(sizes) > limits.disk_bytes


def _read(stream: IO[bytes]) -> list[dict[str, object]]:
    """The lines of the report that are in the pipe; whoever still holds its other end is not waited for."""
    with stream:
        os.set_blocking(stream.fileno(), False)
        text = stream.read(MAX_REPORT_BYTES) or b""
    lines = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the program wrote here
        lines += [record] if isinstance(record, dict) else []
    return lines


def _outcome(lines: list[dict[str, object]], mark: str, ended_by: Status | None, code: int) -> Outcome:
    if not lines or not isinstance(active := lines[0].get("ready"), list):
        raise ConfigError(f"The sandbox ended with status {code} before it ran a program.", "allow_code")
    protections = tuple(map(str, active))
    for line in lines[1:]:
        if line.get("mark") == mark:
            status: Status = line["status"]  # type: ignore[assignment]
            return Outcome(status, str(line["detail"]), protections)
    if ended_by is not None:
        return Outcome(ended_by, "passed its limit", protections)
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Outcome("time", "passed its limit", protections)
    if code < 0:
        return Outcome("killed", f"by {signal.Signals(-code).name}", protections)
    return Outcome("exit", f"left with status {code} before its tests ended", protections)
