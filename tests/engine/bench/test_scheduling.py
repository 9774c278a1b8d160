"""Cost per token beside a queue, steps of small requests beside a long prompt: arithmetic by hand, runs in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.bench.__main__ import main
from engine.bench.revisions import Ratios
from engine.bench.scheduling.interference import (
    Interference,
    InterferenceWorkload,
    StepTimes,
    measure_interference,
)
from engine.bench.scheduling.queue import QueueCost, QueueWorkload, compare_depths, measure_queue

TOKENWISE = {"decoder": "low_confidence"}


def cost(queued: int, us: float, host_us: float) -> QueueCost:
    return QueueCost(queued=queued, tokens=10, us_per_token=us, host_us_per_token=host_us)


def test_a_depth_is_compared_with_the_first_of_its_round() -> None:
    first, deep = compare_depths([[cost(1, 100, 10), cost(256, 150, 30)], [cost(1, 200, 20), cost(256, 180, 20)]])
    assert first.ratio == Ratios(1.0, 1.0, 1.0)
    assert deep.ratio == Ratios(pytest.approx(1.2), 0.9, 1.5)
    assert deep.host_ratio == Ratios(2.0, 1.0, 3.0)
    assert deep.cost.us_per_token == 150, "the round with the least cost is told"


def test_the_queue_keeps_its_depth_and_pays_for_what_finishes() -> None:
    workload = QueueWorkload(depths=(1, 5), prompt_len=4, max_tokens=3, requests=4, rounds=2)
    rows = measure_queue("llada-tiny", {"max_num_seqs": 2, "device": "cpu"}, TOKENWISE, workload)
    assert [row.cost.queued for row in rows] == [1, 5]
    for row in rows:
        assert row.cost.tokens % 3 == 0
        assert row.cost.tokens >= 12
        assert 0 < row.cost.host_us_per_token < row.cost.us_per_token


def times(p95_ms: float, steps_per_s: float) -> StepTimes:
    return StepTimes(p50_ms=1.0, p95_ms=p95_ms, max_ms=9.0, steps=7, steps_per_s=steps_per_s)


def test_interference_is_told_by_the_median_round() -> None:
    rounds = [(times(2, 10), times(20, 5)), (times(2, 10), times(4, 8)), (times(4, 10), times(12, 5))]
    found = Interference.of(rounds)
    assert found.p95_ratio == Ratios(3.0, 2.0, 10.0)
    assert (found.alone, found.beside) == rounds[2]
    assert found.rate_ratio == Ratios(0.5, 0.5, 0.8)
    assert found.p50_ratio == Ratios(1.0, 1.0, 1.0)


def test_percentiles_are_of_the_intervals() -> None:
    one = StepTimes.of([0.001 * number for number in range(1, 101)], seconds=50.0, long_s=2.0)
    assert (one.p50_ms, one.p95_ms, one.max_ms) == pytest.approx((50.5, 95.05, 100.0))
    assert (one.steps, one.steps_per_s, one.long_s) == (100, 2.0, 2.0)


@pytest.mark.parametrize("shape", ["llada-tiny", "sdar-tiny"])
def test_every_step_of_small_requests_counts_and_long_ones_end(shape: str) -> None:
    workload = InterferenceWorkload(
        small=2, small_prompt=4, small_tokens=4, small_requests=3, long_prompt=40, long_requests=1, rounds=1
    )
    found = measure_interference(shape, {"max_num_seqs": 4, "device": "cpu"}, TOKENWISE, workload)
    assert found.alone.steps >= 3 * 3, "a request of four tokens has three intervals"
    assert found.alone.long_s == 0.0
    assert found.beside.long_s > 0.0
    assert 0 < found.alone.p50_ms <= found.alone.p95_ms <= found.alone.max_ms


def test_the_commands_print_and_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "found.json"
    words = ["--rounds", "1", "--strategy", "low_confidence", "--output", str(output), "--set", "max_num_seqs=2"]
    small = ["--prompt", "4", "--generate", "2", "--requests", "2", "--queued", "1", "2"]
    assert main(["queue", *small, *words]) == 0
    assert [row["queued"] for row in json.loads(output.read_text())["results"]] == [1, 2]
    small = ["--small", "1", "--small-generate", "3", "--small-requests", "1", "--long-prompt", "8", "--clock", "cpu"]
    assert main(["interference", *small, "--long-requests", "1", *words]) == 0
    assert json.loads(output.read_text())["p95_ratio"]["median"] > 0
    printed = capsys.readouterr().out
    assert "x 1 waiting" in printed
    assert "long prompts" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["queue", "--set", "max_num_seqs"], "key=value"),
        (["queue", "--set", "slots=2"], "unknown engine setting"),
        (["interference", "--shape", "gpt"], "unknown shape"),
        (["interference", "--shape", "llada-tiny", "--set", "max_num_batched_tokens=64"], "max_num_batched_tokens"),
        (["serve", "--rate", "2"], "python -m deployments.bench serve --rate 2"),
    ],
)
def test_wrong_words_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().out
