"""Processes that are started together."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster.processes import run_processes

SCRIPT = """
import os, sys, time
from pathlib import Path
rank = os.environ["RANK"]
Path(sys.argv[1], rank).write_text(" ".join(os.environ[name] for name in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")))
if rank == "1":
    sys.exit(int(sys.argv[2]))
if sys.argv[2] != "0":
    time.sleep(60)
"""


@pytest.mark.parametrize("status", [0, 3])
def test_every_rank_runs_and_a_failure_ends_all(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.processes.GRACE_S", 0.3)
    assert run_processes([sys.executable, "-c", SCRIPT, str(tmp_path), str(status)], 2) == status
    assert (tmp_path / "1").read_text() == "2 1 127.0.0.1"
