"""A training as it is shown."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from deployments.cli.training_display import TrainingDisplay, describe, left_out
from engine.training.job import BadRows
from engine.training.metrics import TrainProgress

PROGRESS = TrainProgress(
    step=5,
    fraction=0.25,
    loss=1.5,
    rate=0.5,
    gradient_norm=1.0,
    samples=80,
    tokens_per_s=1234.0,
    elapsed_s=30.0,
    dropped_rows=2,
    bad_rows=1,
)


def test_a_report_is_one_line() -> None:
    text = describe(PROGRESS)
    assert text == "step 5  loss 1.500  rate 0.50  80 samples  1234 tokens/s  0:01:30 left  1 bad rows"
    assert describe(replace(PROGRESS, scores={"sums": 0.5})).endswith("sums 50%")
    stream = io.StringIO()
    with TrainingDisplay(stream) as display:
        display.show(PROGRESS)
    assert stream.getvalue() == f" 25.0%  {text}\n"


def test_what_was_left_out_is_said_at_the_end() -> None:
    bad_rows = BadRows()
    bad_rows.add("a.jsonl:3", "not JSON")
    lines = list(left_out(PROGRESS, bad_rows, Path("out")))
    assert lines[0].startswith("2 rows were longer")
    assert "out.bad_rows.jsonl" in lines[1]
    assert lines[2] == "  a.jsonl:3: not JSON"
    assert not list(left_out(replace(PROGRESS, dropped_rows=0), None, Path("out")))
