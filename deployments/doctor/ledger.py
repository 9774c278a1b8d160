"""The experiments' ledger: can it be opened and written?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from deployments.doctor.finding import Finding, Subject, failure, ok, warning
from deployments.doctor.machine import existing, free_disk
from deployments.experiments.ledger.database import check_version, open_database, shown, sqlite_path
from engine.errors import ConfigError
from engine.models.inspect import format_bytes

MIN_FREE_BYTES = 100 * 2**20
BUSY_TIMEOUT_S = 1.0


def check_ledger(subject: Subject) -> Iterator[Finding]:
    """Makes no file and no table. Without experiments a ledger that cannot be used is a warning."""
    if subject.config is None:
        return
    url = subject.config.ledger
    use = "" if subject.config.experiments else "; no experiment uses it yet"
    try:
        message = _look(url)
    except (ConfigError, SQLAlchemyError, OSError) as error:
        found = failure if subject.config.experiments else warning
        reason = str(getattr(error, "orig", None) or error)
        yield found(
            "ledger", f"{shown(url)}: {reason}{use}", "correct `ledger` in the settings, or who may write there"
        )
    else:
        yield ok("ledger", f"{shown(url)}: {message}{use}")


def _look(url: str) -> str:
    path = sqlite_path(url)
    if path is not None:
        _check_folder(path)
        if not path.exists():
            return "will be made with the first outcome"
    engine = open_database(url, BUSY_TIMEOUT_S)
    with engine.connect() as connection:
        known = check_version(connection)
        if path is not None:
            connection.rollback()
            connection.execute(text("BEGIN IMMEDIATE"))  # an error where it is locked or may not be written
            connection.rollback()
    return "can be written" if known else "can be opened; its tables will be made"


def _check_folder(path: Path) -> None:
    folder = existing(path.parent)
    if not os.access(folder, os.W_OK) or not folder.is_dir():
        raise ConfigError(f"{folder} may not be written by this user", "ledger")
    free = free_disk(folder)[0]
    if free < MIN_FREE_BYTES:
        raise ConfigError(f"only {format_bytes(free)} are free in {folder}", "ledger")
