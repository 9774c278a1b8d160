"""Limits of the operating system that hurt late: open files, shared memory, disk, clock."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import engine
from deployments.doctor.finding import Finding, Subject, failure, ok, warning
from deployments.doctor.machine import free_disk
from engine.models.inspect import format_bytes

MIN_FILES, ENOUGH_FILES = 1024, 8192
SHARED_MEMORY = Path("/dev/shm")
ENOUGH_SHARED_BYTES = 2**30
MIN_DISK_BYTES = 2**30
RAY_DISK_SHARE = 0.05
"""Ray stores nothing more when less than this share of the disk is free."""


def check_open_files(subject: Subject, hard_limit: int | None = None) -> Iterator[Finding]:
    """Ray raises the soft limit to the hard one; every connection and every worker takes some."""
    del subject
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if hard_limit is None else hard_limit
    if limit == resource.RLIM_INFINITY or limit >= ENOUGH_FILES:
        yield ok("open files", "no limit" if limit == resource.RLIM_INFINITY else f"{limit} at most")
        return
    found = failure if limit < MIN_FILES else warning
    yield found("open files", f"{limit} at most (ulimit -Hn)", f"raise it to {ENOUGH_FILES} or more (65536 is usual)")


def check_shared_memory(subject: Subject, folder: Path = SHARED_MEMORY) -> Iterator[Finding]:
    del subject
    if not folder.is_dir():
        yield warning("shared memory", f"there is no {folder}", "Ray then uses files, which are slow")
        return
    total = free_disk(folder)[1]
    if total < ENOUGH_SHARED_BYTES:
        yield warning(
            "shared memory",
            f"{folder} has {format_bytes(total)}; Ray's objects and ranks' tensors go there",
            "Docker: --shm-size=2g; Kubernetes: an emptyDir with medium: Memory at /dev/shm",
        )
    else:
        yield ok("shared memory", f"{folder} has {format_bytes(total)}")


def check_disk(subject: Subject, folder: Path | None = None) -> Iterator[Finding]:
    """Where Ray keeps sessions and logs."""
    if not subject.is_local:
        return
    folder = folder or Path(tempfile.gettempdir())
    free, total = free_disk(folder)
    message = f"{format_bytes(free)} of {format_bytes(total)} free in {folder} (Ray's sessions and logs)"
    if free < max(MIN_DISK_BYTES, RAY_DISK_SHARE * total):
        yield failure(
            "disk", message, "free some space: Ray stops storing at 95 % full; RAY_TMPDIR names another place"
        )
    else:
        yield ok("disk", message)


def check_clock(subject: Subject, now: float | None = None) -> Iterator[Finding]:
    """A clock before the time at which this program was written cannot be right."""
    del subject
    now = time.time() if now is None else now
    written = Path(engine.__file__).stat().st_mtime
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < written - 86_400:
        yield failure("clock", f"{shown}, which is before this program was installed", "set the clock (NTP)")
    else:
        yield ok("clock", shown)
