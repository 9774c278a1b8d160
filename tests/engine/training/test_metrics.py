"""Reports on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.training.job import BadRows
from engine.training.metrics import MetricsLog, RunFiles, TrainProgress


def progress(step: int) -> TrainProgress:
    return TrainProgress(
        step=step,
        fraction=0.1 * step,
        loss=1.0 / step,
        rate=0.5,
        gradient_norm=2.0,
        samples=10 * step,
        tokens_per_s=100.0,
        elapsed_s=float(step),
        scores={"sums": 0.5} if step == 2 else None,
    )


def test_a_resumed_run_cuts_what_came_after_its_state(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "out")
    log = MetricsLog(files, None)
    bad_rows = BadRows()
    log.begin()
    for step in (1, 2, 3):
        bad_rows.add(f"a.jsonl:{step}", "empty")
        log.report(progress(step))
        log.name_bad_rows(bad_rows)
    with files.metrics.open("a") as file:
        file.write('{"step": 4, "lo')
    log.go_on(2, bad_rows=1)
    assert [json.loads(line)["step"] for line in files.metrics.read_text().splitlines()] == [1, 2]
    assert [json.loads(line)["place"] for line in files.bad_rows.read_text().splitlines()] == ["a.jsonl:1"]
    assert bad_rows.examples == ["a.jsonl:1: empty", "a.jsonl:2: empty", "a.jsonl:3: empty"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own imports
def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "events"
    log = MetricsLog(RunFiles(tmp_path / "out"), folder)
    log.begin()
    log.report(progress(1))
    log.report(progress(2))
    log.close()
    events = EventAccumulator(str(folder)).Reload()
    assert [event.value for event in events.Scalars("train/loss")] == [1.0, 0.5]
    assert [event.step for event in events.Scalars("validation/sums")] == [2]
