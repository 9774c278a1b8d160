"""Folders that are replaced as a whole: what is on disk is complete, also when the machine stops or the disk fills."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from engine.errors import ConfigError
from engine.training.world import ALONE, World

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MIB = 2**20


@contextmanager
def replacing(folder: Path, needed_bytes: int, world: World = ALONE) -> Iterator[Path]:
    """A new folder beside ``folder`` that takes its place when the block ends without an error, all bytes on disk.

    Collective: all processes write into it, and it counts when none failed. ConfigError when there is no room:
    ``folder`` is as it was, and what was begun is removed.
    """
    staging = folder.with_name(f".{folder.name}.partial")
    try:
        with _everywhere(folder, needed_bytes, world):
            if world.is_first:
                folder.parent.mkdir(parents=True, exist_ok=True)
                recover(folder)
                shutil.rmtree(staging, ignore_errors=True)
                check_room(folder, needed_bytes)
                staging.mkdir()
        with _everywhere(folder, needed_bytes, world):
            yield staging
        with _everywhere(folder, needed_bytes, world):
            make_durable(staging)
    except Exception:
        if world.is_first:
            shutil.rmtree(staging, ignore_errors=True)
        world.wait()
        raise
    if world.is_first:
        put_in_place(staging, folder)
    world.wait()


@contextmanager
def _everywhere(folder: Path, needed_bytes: int, world: World) -> Iterator[None]:
    """A part of the work that is over when it is over in every process, and has failed when it failed in one: none
    looks at files that another is still writing, or goes on alone."""
    failure: Exception | None = None
    try:
        with explained(folder, needed_bytes):
            yield
    except Exception as error:  # noqa: BLE001 - raised below, when all processes know
        failure = error
    if world.max([failure is not None])[0] > 0:
        raise failure or ConfigError(f"Another process could not write {folder}.", "output")


def put_in_place(staging: Path, folder: Path) -> None:
    """Rename ``staging`` to ``folder``; what was there goes."""
    retired = _retired(folder)
    staging.chmod(0o755)
    if folder.exists():
        os.replace(folder, retired)
    os.replace(staging, folder)
    _sync(folder.parent)
    shutil.rmtree(retired, ignore_errors=True)


def recover(folder: Path) -> None:
    """Finish what :func:`put_in_place` was stopped in: either the old folder or the new one is there afterwards."""
    retired = _retired(folder)
    if retired.exists() and not folder.exists():
        os.replace(retired, folder)
    shutil.rmtree(retired, ignore_errors=True)


def check_room(folder: Path, needed_bytes: int) -> None:
    """ConfigError when the disk of ``folder`` has less than ``needed_bytes`` free."""
    if shutil.disk_usage(folder.parent).free < needed_bytes:
        raise _no_room(folder, needed_bytes)


@contextmanager
def explained(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Turn the errors of a full disk into one that says what to do."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if _error_number(error) in NO_ROOM:
            raise _no_room(folder, needed_bytes) from error
        raise


def make_durable(folder: Path) -> None:
    """Wait until every file below ``folder`` is on disk; readable for all, like files that are made in place."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    _sync(folder)


def _no_room(folder: Path, needed_bytes: int) -> ConfigError:
    free = shutil.disk_usage(folder.parent).free
    return ConfigError(
        f"There is no room for {folder}: it needs {needed_bytes / MIB:.1f} MiB beside what is there, and "
        f"{folder.parent} has {free / MIB:.1f} MiB free (unless files are limited). What was saved before is intact: "
        "make room and go on with --resume.",
        "output",
    )


def _error_number(error: Exception) -> int | None:
    """Of the system call that failed; Rust's errors (and torch's) carry it in their text only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)|file write failed", str(error))
    return None if found is None else int(found[1] or errno.ENOSPC)


def _retired(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
