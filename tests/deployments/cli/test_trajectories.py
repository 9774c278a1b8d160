"""One of several processes collects trajectories."""

from __future__ import annotations

from pathlib import Path
from threading import Timer

import pytest

from deployments.cli import trajectories
from deployments.cli.trajectories import by_first
from engine.training.trajectories import Collection, CollectionWriter
from tests.engine.training.test_trajectories import ATTEMPT, HEADING


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_collects_and_the_others_wait(rank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(trajectories, "POLL_S", 0.001)
    path = tmp_path / "collection.jsonl"
    attempts = [ATTEMPT] * HEADING.num_prompts

    def collect() -> Collection:
        writer = CollectionWriter(path, HEADING)
        writer.add(attempts)
        return Collection(HEADING, writer.attempts)

    other = Timer(0.02, collect)
    if rank == "1":
        other.start()
    found = by_first(collect if rank == "0" else lambda: pytest.fail("collected twice"), path)
    assert found == Collection(HEADING, attempts)
    if rank == "1":
        other.join()
