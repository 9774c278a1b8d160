"""deployments/doctor/ledger.py: real files of SQLite."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from deployments.config import AppConfig
from deployments.doctor.finding import Finding, Status, Subject
from deployments.doctor.ledger import check_ledger
from deployments.experiments.ledger.database import open_database, prepare

EXPERIMENT = {
    "name": "speed",
    "arms": [
        {"name": "a", "strategy": {"decoder": "low_confidence"}},
        {"name": "b", "strategy": {"decoder": "random"}},
    ],
}


def look(ledger: str, *, used: bool = True) -> Finding:
    config = AppConfig.parse({"ledger": ledger, "experiments": [EXPERIMENT] if used else []})
    (found,) = check_ledger(Subject(config=config))
    return found


def test_a_new_ledger_is_not_made(tmp_path: Path) -> None:
    found = look(f"sqlite:///{tmp_path}/new/ledger.sqlite3")
    assert found.status is Status.OK
    assert list(tmp_path.iterdir()) == []
    assert "no experiment uses it" in look(f"sqlite:///{tmp_path}/new/ledger.sqlite3", used=False).message


def test_a_ledger_with_tables(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    prepare(open_database(url))
    assert look(url).message.endswith("can be written")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_text("not a database, whatever its name says" * 40)
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    assert look(url).status is Status.FAILURE
    assert look(url, used=False).status is Status.WARNING


def test_a_ledger_of_a_newer_version(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    prepare(open_database(url))
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as connection:
        connection.execute("UPDATE lacuna_ledger SET version = 99")
    connection.close()
    assert "schema version 99" in look(url).message


def test_a_locked_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.doctor.ledger.BUSY_TIMEOUT_S", 0.01)
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    prepare(open_database(url))
    connection = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = look(url)
    finally:
        connection.close()
    assert found.status is Status.FAILURE
    assert "locked" in found.message


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = look(f"sqlite:///{tmp_path}/file/ledger.sqlite3")
    assert found.status is Status.FAILURE


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.doctor.ledger.free_disk", lambda path: (2**20, 2**40))
    assert "only 1.00 MiB are free" in look(f"sqlite:///{tmp_path}/ledger.sqlite3").message
