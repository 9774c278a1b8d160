"""What several ranks cost: the arithmetic of bytes that have to move, the records, the options."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest
import torch

from engine.bench.__main__ import main
from engine.bench.ranks.command import LAYOUTS, layouts_of, parse_layout
from engine.bench.ranks.least_bytes import LeastBytes, least_bytes
from engine.bench.ranks.measure import best_of_runs
from engine.bench.ranks.recording import RecordedGroup, Recorder, written_bytes
from engine.bench.throughput.shapes import shape
from engine.errors import ConfigError
from engine.parallel import NoGroup, ParallelLayout

TINY = shape("llada-tiny")
MIXTURE = shape("llada-moe-67m")
SMALL = ["ranks", "--shape", "llada-tiny", "--batch", "2", "--prompt", "8", "--generate", "4", "--repeat", "1"]


def test_one_rank_sends_nothing() -> None:
    assert least_bytes(TINY, ParallelLayout(), 4, 100, 50, 300).total == 0


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_dense_network_sums_embeddings_heads_and_feed_forward_parts(ranks: int) -> None:
    hidden = 100 * TINY.hidden_size * 4
    assert least_bytes(TINY, ParallelLayout(ranks), 4, 100, 50, 300) == LeastBytes(
        layers=(1 + 2 * TINY.num_layers) * 2 * (ranks - 1) * hidden,
        vocabulary=ranks * (ranks - 1) * 50 * 12,
        plan=(ranks - 1) * 300,
    )


def test_experts_alone_need_one_sum_of_all_ranks_per_sparse_layer() -> None:
    assert MIXTURE.moe is not None
    mostly = replace(MIXTURE, moe=replace(MIXTURE.moe, dense_layers=frozenset({0})))
    hidden = 10 * MIXTURE.hidden_size * 2
    whole, less = (least_bytes(spec, ParallelLayout(1, 4), 2, 10, 5, 0) for spec in (MIXTURE, mostly))
    assert (whole.layers, less.layers) == (8 * 6 * hidden, 7 * 6 * hidden)
    assert whole.vocabulary == 0


def test_each_tensor_group_sums_for_itself_and_all_ranks_for_the_experts() -> None:
    hidden = 10 * MIXTURE.hidden_size * 4
    least = least_bytes(MIXTURE, ParallelLayout(2, 4), 4, 10, 5, 100)
    assert least.layers == 9 * 2 * (2 * hidden) + 8 * (6 * hidden)
    assert (least.vocabulary, least.plan) == (2 * 2 * 5 * 12, 300)


def test_how_tokens_meet_experts_does_not_change_the_least() -> None:
    sends = ParallelLayout(2, 4, "all_to_all")
    assert least_bytes(MIXTURE, sends, 4, 10, 5, 100) == least_bytes(MIXTURE, ParallelLayout(2, 4), 4, 10, 5, 100)


def test_each_event_counts_with_its_best_run_and_rank_but_not_the_first_run() -> None:
    seconds = [[0.1, 0.1, 5.0, 7.0, 6.0, 4.0], [0.1, 0.1, 8.0, 3.0, 9.0, 9.0]]
    assert best_of_runs(seconds, runs=2).tolist() == [5.0, 3.0]
    with pytest.raises(AssertionError, match="not alike"):
        best_of_runs([[1.0, 2.0, 3.0]], runs=1)


def test_what_is_written_to_a_pipe_is_counted() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "wb", buffering=0) as pipe:
        before = written_bytes()
        pipe.write(b"x" * 1000)
        assert written_bytes() - before == 1000


def test_collectives_are_no_computing() -> None:
    class Busy(NoGroup):
        def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
            until = time.thread_time() + 0.02
            while time.thread_time() < until:
                pass
            return tensor

    recorder = Recorder()
    group = RecordedGroup(Busy(), recorder)
    recorder.end_step()
    recorder.begin_step()
    group.all_reduce(torch.ones(1))
    group.all_gather(torch.ones(1))
    recorder.end_step()
    record = recorder.record
    assert len(record.call_s) == 2
    assert record.call_s[0] >= 0.02
    assert len(record.compute_s) == 1
    assert 0 <= record.compute_s[0] < 0.02


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("tp2", ParallelLayout(2)),
        ("ep4", ParallelLayout(1, 4)),
        ("tp2ep4+all_to_all", ParallelLayout(2, 4, "all_to_all")),
    ],
)
def test_layouts_by_name(text: str, layout: ParallelLayout) -> None:
    assert parse_layout(text) == layout


@pytest.mark.parametrize("text", ["", "2", "+all_to_all", "tp", "ep2tp2"])
def test_a_layout_that_has_no_meaning_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="tp2ep4"):
        parse_layout(text)


def test_without_a_choice_a_shape_gets_the_layouts_that_it_can_have() -> None:
    assert list(layouts_of(TINY, None)) == ["tp2"]
    for name in ("llada-83m", "sdar-42m"):
        assert list(layouts_of(shape(name), None)) == ["tp2", "tp4"]
    assert list(layouts_of(MIXTURE, None)) == list(LAYOUTS)


@pytest.mark.parametrize(
    "wrong", [["--layout", "tp3"], ["--layout", "ep2"], ["--layout", "x"], ["--shape", "sphere"], ["--repeat", "0"]]
)
def test_what_cannot_be_is_named(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *wrong]) == 2
    assert wrong[1].lstrip("tep") in capsys.readouterr().out
