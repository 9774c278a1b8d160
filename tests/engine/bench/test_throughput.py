"""Least work by hand, times that add up, a table, and a comparison with a commit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bench.__main__ import main
from engine.bench.throughput.measure import Bench, Workload
from engine.bench.throughput.roofline import Roofline, Work, body_work, head_work
from engine.bench.throughput.shapes import SHAPES, random_model, shape
from engine.config import EngineConfig
from engine.errors import InvalidRequestError
from engine.models.loader import build_model
from engine.plan import Rows

LIMITS = Roofline(flops_per_s=1e11, bytes_per_s=1e10)


def rows_of(*rows: tuple[int, int, int, int]) -> Rows:
    return Rows(np.arange(len(rows)), *np.array(rows).T)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_least_work_of_a_forward_is_that_of_its_parameters(name: str) -> None:
    spec = shape(name)
    sizes = {key: parameter.numel() for key, parameter in build_model(spec).named_parameters()}
    layers = sum(size for key, size in sizes.items() if key.startswith("layers.") and "norm" not in key)
    work = body_work(spec, rows_of((0, 1000, 0, 1000), (5, 45, 0, 100)), itemsize=2)
    pairs, keys = 1000 * 1000 + 40 * 100, 1100
    width = spec.num_heads * spec.head_dim
    experts = sum(size for key, size in sizes.items() if ".experts." in key)
    active = layers - experts
    if spec.moe is not None:
        active += experts * spec.moe.routing.experts_per_token / spec.moe.num_experts
    assert work.flops == pytest.approx(2 * active * 1040 + spec.num_layers * 4 * pairs * width)
    kv = spec.num_layers * 2 * keys * spec.num_kv_heads * spec.head_dim
    assert work.bytes == pytest.approx(2 * (layers + kv))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_last_layer_is_least_work_where_nobody_reads_its_outputs(name: str) -> None:
    spec = shape(name)
    sizes = {key: parameter.numel() for key, parameter in build_model(spec).named_parameters()}
    last = {key: size for key, size in sizes.items() if key.startswith(f"layers.{spec.num_layers - 1}.")}
    outputs = sum(size for key, size in last.items() if "norm" not in key and "qkv_proj" not in key)
    rows = rows_of((0, 1000, 0, 1000))
    whole, none = body_work(spec, rows, itemsize=2), body_work(spec, rows, itemsize=2, num_read=0)
    assert whole.bytes - none.bytes == 2 * outputs
    half = body_work(spec, rows, itemsize=2, num_read=500)
    assert whole.flops - half.flops == half.flops - none.flops > 0


def test_few_tokens_read_few_experts_and_no_position_needs_no_head() -> None:
    spec = shape("llada-moe-67m")
    assert spec.moe is not None
    one, many = (body_work(spec, rows_of((0, count, 0, 1)), 4).bytes for count in (1, 2))
    expert = 3 * spec.hidden_size * spec.moe.intermediate_size
    assert many - one == 4 * spec.num_layers * 4 * expert
    assert head_work(spec, 0, 4) == Work(0.0, 0.0)
    assert head_work(spec, 3, 4) == Work(6.0 * spec.vocab_size * 256, 4.0 * spec.vocab_size * 256)


def test_the_limit_is_the_slower_of_computing_and_moving() -> None:
    assert LIMITS.floor_s(Work(1e11, 1e9)) == 1.0
    assert LIMITS.floor_s(Work(1e10, 2e10)) == 2.0


def test_a_measurement_accounts_for_all_of_its_time_and_work() -> None:
    model = random_model(shape("llada-tiny"), torch.float32, torch.device("cpu"))
    config = EngineConfig(device="cpu", max_num_seqs=2, max_num_batched_tokens=64)
    bench = Bench(model, config, 32, LIMITS)
    strategy = {"decoder": "low_confidence", "cache": "none", "block_length": 8}
    one = bench.best_of(Workload(prompt_lens=[8, 8], completion_lens=[8, 16], strategy=strategy), repeats=1)
    assert (one.tokens, one.forwards) == (24, 16)
    assert one.positions == 8 * 16 + 16 * 24
    assert one.tokens_per_forward == 1.0
    assert one.body_share + one.head_share + one.decide_share + one.host_share == pytest.approx(1.0)
    assert min(one.body_share, one.head_share, one.decide_share, one.host_share) > 0
    expected = body_work(model.spec, rows_of(*[(0, 24, 0, 24)] * 8), 4)
    for num_open in range(1, 9):  # in each of two sequences, which the last layer makes outputs of where that spares 32
        num_read = 2 * num_open if 40 - 2 * num_open >= 32 else None
        expected += body_work(model.spec, rows_of((0, 16, 0, 16), (0, 24, 0, 24)), 4, num_read)
    expected += head_work(model.spec, sum(range(1, 9)) * 3, 4)
    products_s = one.seconds * (one.body_share + one.head_share)
    assert one.flops_utilisation * products_s * LIMITS.flops_per_s == pytest.approx(expected.flops)


def test_whole_forwards_are_timed_without_looking_into_them() -> None:
    """What the graphs of a GPU need; several steps per look count as so many forwards."""
    model = random_model(shape("llada-tiny"), torch.float32, torch.device("cpu"))
    config = EngineConfig(device="cpu", max_num_seqs=1, max_num_batched_tokens=64, steps_per_look=2)
    bench = Bench(model, config, 32, LIMITS, whole=True)
    strategy = {"decoder": "low_confidence", "cache": "none", "block_length": 8}
    one = bench.best_of(Workload(prompt_lens=[8], completion_lens=[8], strategy=strategy), repeats=1)
    assert (one.tokens, one.forwards, one.head_share) == (8, 8, 0.0)
    assert one.body_share + one.host_share == pytest.approx(1.0)
    assert one.forward_ms == pytest.approx(one.seconds * one.body_share / 8 * 1e3)
    work = body_work(model.spec, rows_of((0, 16, 0, 16)), 4)
    heads = (head_work(model.spec, open_positions, 4) for open_positions in (8, 6, 4, 2))
    floor_s = 8 * LIMITS.floor_s(work) + 2 * sum(map(LIMITS.floor_s, heads))
    assert one.floor_ms == pytest.approx(floor_s / 8 * 1e3)
    assert (one.graph_forwards, one.idle_positions) == (0, 0)


def test_random_networks_repeat_and_unknown_shapes_are_named() -> None:
    spec, device = shape("llada-tiny"), torch.device("cpu")
    first, again = (random_model(spec, torch.float32, device) for _ in range(2))
    for (name, left), right in zip(first.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right), name
    with pytest.raises(InvalidRequestError, match="llada-8b"):
        shape("llada-9b")


def test_the_command_prints_a_table_and_writes_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    output = tmp_path / "results.json"
    words = ["--shape", "llada-tiny", "--batch", "1", "2", "--prompt", "8", "--generate", "8", "--repeat", "1"]
    try:
        assert main(["throughput", *words, "--mixed", "--strategy", '{"threshold": 0.5}', "--output", str(output)]) == 0
    finally:
        torch.set_num_threads(threads)
    document = json.loads(output.read_text())
    assert [row["batch"] for row in document["results"]] == [1, 2]
    assert document["results"][1]["tokens"] == 13
    shown = capsys.readouterr().out
    assert "llada-tiny" in shown
    assert '#1: {"threshold": 0.5}' in shown


@pytest.mark.slow
def test_another_commit_is_measured_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "ratios.json"
    words = ["--shape", "llada-tiny", "--batch", "1", "2", "--prompt", "8", "--generate", "8", "--repeat", "2"]
    assert main(["throughput", *words, "--baseline", "HEAD", "--output", str(output)]) == 0
    document = json.loads(output.read_text())
    assert (document["baseline"], document["rounds"]) == ("HEAD", 2)
    assert [row["batch"] for row in document["ratios"]] == [1, 2]
    assert all(0 < row["least"] <= row["median"] <= row["greatest"] for row in document["ratios"])
    assert "those of HEAD" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--strategy", "nonsense"], "not JSON"),
        (["--strategy", "[]"], "not a JSON object"),
        (["--strategy", '{"decoder": "no"}'], "threshold"),
        (["--baseline", "no-such-commit"], "no-such-commit"),
    ],
)
def test_wrong_options_are_explained(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["throughput", "--shape", "llada-tiny", "--prompt", "8", "--generate", "8", *words]) == 2
    finally:
        torch.set_num_threads(threads)
    assert says in capsys.readouterr().out
