"""Folders that several processes write and that take their place as a whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.training.storage import replacing
from engine.training.world import World

PATIENCE_S = 30
A_WHILE_S = 0.2


@dataclass
class Meeting:
    """Where two threads agree on maxima."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=PATIENCE_S))
    said: dict[int, Sequence[float]] = field(default_factory=dict)

    def maxima(self, rank: int, values: Sequence[float]) -> list[float]:
        self.said[rank] = values
        self.barrier.wait()
        maxima = [max(column) for column in zip(*self.said.values(), strict=True)]
        self.barrier.wait()
        return maxima


@dataclass(frozen=True, slots=True)
class Thread(World):
    """A process of a training of two, as a thread."""

    meeting: Meeting = field(default_factory=Meeting)

    def max(self, values: Sequence[float]) -> list[float]:
        return self.meeting.maxima(self.rank, values)

    def wait(self) -> None:
        self.max([0.0])


def in_both(function: Callable[[World], None]) -> list[BaseException | None]:
    """What calls in two threads raised."""
    meeting = Meeting()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(function, Thread(rank, 2, rank, meeting)) for rank in range(2)]
        return [call.exception() for call in calls]


@pytest.mark.parametrize("slow", [0, 1])
def test_nobody_touches_what_another_process_is_still_writing(tmp_path: Path, slow: int) -> None:
    other_is_done = threading.Event()
    modes: list[int] = []

    def write(world: World) -> None:
        with replacing(tmp_path / "state", 1, world) as staging:
            if world.rank != slow:
                (staging / "quick").write_text("quick")
                other_is_done.set()
                return
            begun = staging / ".begun"
            begun.touch(mode=0o600)
            assert other_is_done.wait(PATIENCE_S)
            time.sleep(A_WHILE_S)
            modes.append(begun.stat().st_mode & 0o777)
            begun.rename(staging / "slow")

    assert in_both(write) == [None, None]
    assert modes == [0o600]
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()} == {
        "quick": 0o644,
        "slow": 0o644,
    }


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_in_one_process_leaves_the_old_folder_and_is_told_in_both(tmp_path: Path, failing: int) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "old").touch()

    def write(world: World) -> None:
        with replacing(folder, 1, world) as staging:
            (staging / f"new{world.rank}").touch()
            if world.rank == failing:
                raise OSError("broken disk")

    raised = in_both(write)
    assert isinstance(raised[failing], OSError)
    assert isinstance(raised[1 - failing], ConfigError)
    assert [path.name for path in tmp_path.rglob("*")] == ["state", "old"]


def test_where_the_first_process_cannot_begin_the_other_does_not_write(tmp_path: Path) -> None:
    written: list[int] = []

    def write(world: World) -> None:
        with replacing(tmp_path / "state", 2**62, world):
            written.append(world.rank)

    raised = in_both(write)
    assert "There is no room for" in str(raised[0])
    assert isinstance(raised[1], ConfigError)
    assert written == []
    assert list(tmp_path.iterdir()) == []
