"""Processes that are started together."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster.processes import Failure, run_processes

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
rank = os.environ["RANK"]
Path(sys.argv[1], rank).write_text(" ".join(os.environ[name] for name in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")))
if rank == "1" and sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if rank == "1":
    sys.exit(int(sys.argv[2]))
if sys.argv[2] != "0":
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("end", "failure", "text"),
    [
        ("0", None, "None"),
        ("3", Failure(1, 3, 0), "worker 1 ended with status 3"),
        ("killed", Failure(1, 137, 9), "worker 1 was ended by SIGKILL (as when memory runs out)"),
    ],
)
def test_every_rank_runs_and_a_failure_ends_all(
    end: str, failure: Failure | None, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.processes.GRACE_S", 0.3)
    found = run_processes([sys.executable, "-c", SCRIPT, str(tmp_path), end], 2)
    assert found == failure
    assert str(found) == text
    assert (tmp_path / "1").read_text() == "2 1 127.0.0.1"


def test_a_death_by_signal_is_the_cause_of_other_failures() -> None:
    assert Failure.first([1, None, -9, 1]) == Failure(2, 137, 9)
    assert Failure.first([None, 1, 2]) == Failure(2, 2, 0)
    assert Failure.first([None, 0]) is None
