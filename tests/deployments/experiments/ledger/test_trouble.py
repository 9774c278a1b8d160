"""Databases that are locked, full, read-only, corrupt or gone: nobody waits, nothing is raised, writing resumes."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.experiments.ledger.database import parse_url, shown
from deployments.experiments.ledger.reader import LedgerReader
from deployments.experiments.ledger.writer import Ledger
from engine.errors import ConfigError
from tests.deployments.experiments.records import outcome
from tests.ports import free_port

ROOT = Path(__file__).parents[4]
MakeLedger = Callable[..., Ledger]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def make() -> Iterator[MakeLedger]:
    made: list[Ledger] = []

    def build(path: Path | str, **options: float) -> Ledger:
        url = path if isinstance(path, str) else f"sqlite:///{path}"
        made.append(Ledger(url, busy_timeout_s=0.05, retry_s=0.02, **options))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for ledger in made:
        ledger.close(2.0)


def until_failed(ledger: Ledger) -> None:
    """A record is taken at once and then cannot be written."""
    assert ledger.record(outcome())
    deadline = time.monotonic() + 10
    while ledger.stats().healthy:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert ledger.stats().pending >= 1


def count(path: Path) -> int:
    return len(LedgerReader(f"sqlite:///{path}").observations("speed", "r1"))


def test_a_locked_database(path: Path, make: MakeLedger, caplog: pytest.LogCaptureFixture) -> None:
    ledger = make(path)
    ledger.record(outcome())
    assert ledger.flush()
    blocker = sqlite3.connect(path)
    blocker.execute("BEGIN EXCLUSIVE")
    started = time.perf_counter()
    assert all(ledger.record(outcome(time=1.0)) for _ in range(100))
    assert time.perf_counter() - started < 2, "a hundred waits for the lock would take five seconds"
    with caplog.at_level(logging.WARNING):
        until_failed(ledger)
        while ledger.stats().failed < 3:
            time.sleep(0.01)
        blocker.rollback()
        blocker.close()
        assert ledger.flush()
    assert (count(path), ledger.stats().healthy) == (102, True)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2, "one line per change of state"
    assert "locked" in messages[0]
    assert "is back" in messages[1]


def test_a_corrupt_database_that_is_moved_away(path: Path, make: MakeLedger) -> None:
    path.write_bytes(b"this is no database" * 1000)
    ledger = make(path)
    until_failed(ledger)
    path.unlink()
    assert ledger.flush()
    assert count(path) == 1


def test_a_folder_that_cannot_be_made(tmp_path: Path, make: MakeLedger) -> None:
    (tmp_path / "file").touch()
    ledger = make(tmp_path / "file" / "ledger.sqlite3")
    until_failed(ledger)
    (tmp_path / "file").unlink()
    assert ledger.flush()
    assert count(tmp_path / "file" / "ledger.sqlite3") == 1


def test_a_database_that_is_removed_while_it_is_used(path: Path, make: MakeLedger) -> None:
    ledger = make(path)
    ledger.record(outcome())
    assert ledger.flush()
    path.unlink()
    ledger.record(outcome())
    assert ledger.flush()
    assert count(path) == 1, "the new file has tables of its own"


def test_a_read_only_database(path: Path, make: MakeLedger) -> None:
    make(path).close()
    first = make(path)
    first.record(outcome())
    assert first.flush()
    ledger = make(f"sqlite:///file:{path}?mode=ro&uri=true")
    until_failed(ledger)
    ledger.close()
    assert (ledger.stats().dropped, count(path)) == (1, 1)


FULL_DISK = """
import resource, signal, sys, time
from deployments.experiments.ledger.writer import Ledger
from engine.errors import ConfigError
from tests.deployments.experiments.records import outcome
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(sys.argv[1], retry_s=0.02)
ledger.record(outcome())
assert ledger.flush()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file of this process may grow beyond
for _ in range(1000):
    assert ledger.record(outcome(strategy={"text": "x" * 1000}))
while ledger.stats().healthy:
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert ledger.flush(30)
ledger.close()
print(ledger.stats().written, ledger.stats().dropped)
"""


def test_a_full_disk(path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, f"sqlite:///{path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["1001", "0"], done.stderr
    assert count(path) == 1001


def test_a_server_that_is_not_there(make: MakeLedger) -> None:
    ledger = make(f"postgresql://lacuna:secret@127.0.0.1:{free_port()}/none")
    until_failed(ledger)
    started = time.monotonic()
    ledger.close()
    assert time.monotonic() - started < 5
    assert ledger.stats().dropped == 1


def test_what_does_not_fit_is_dropped_and_counted(path: Path, make: MakeLedger) -> None:
    path.write_bytes(b"corrupt" * 1000)
    ledger = make(path, max_pending=10)
    taken = [ledger.record(outcome()) for _ in range(25)]
    assert taken == [True] * 10 + [False] * 15
    assert ledger.stats().dropped == 15
    path.unlink()
    assert ledger.flush()
    assert ledger.record(outcome()), "there is room again"


def test_closing_writes_what_is_pending_and_takes_no_more(path: Path, make: MakeLedger) -> None:
    ledger = make(path)
    for _ in range(1200):
        ledger.record(outcome())
    ledger.close()
    assert count(path) == 1200
    assert not ledger.record(outcome())
    assert ledger.stats().dropped == 1


def test_closing_gives_up_on_a_dead_database_and_says_so(
    path: Path, make: MakeLedger, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"corrupt" * 1000)
    ledger = make(path)
    for _ in range(5):
        ledger.record(outcome())
    ledger.close()
    assert (ledger.stats().dropped, ledger.stats().pending) == (5, 0)
    assert "5 records that could not be written" in caplog.text


def test_the_url_may_stand_in_the_environment(path: Path, make: MakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LACUNA_TEST_LEDGER", f"sqlite:///{path}")
    ledger = make("env:LACUNA_TEST_LEDGER")
    assert ledger.record(outcome())
    ledger.close(2.0)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("select count(*) from lacuna_outcomes").fetchone() == (1,)


def test_a_url_of_the_environment_never_stands_in_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="ledger: the environment variable LACUNA_TEST_LEDGER is not set"):
        parse_url("env:LACUNA_TEST_LEDGER")
    monkeypatch.setenv("LACUNA_TEST_LEDGER", "mysql://ann:secret@x/y")
    with pytest.raises(ConfigError, match="got env:LACUNA_TEST_LEDGER") as caught:
        parse_url("env:LACUNA_TEST_LEDGER")
    assert "secret" not in str(caught.value)
    assert shown("env:LACUNA_TEST_LEDGER") == "env:LACUNA_TEST_LEDGER"
