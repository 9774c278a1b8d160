"""The benchmark of several ranks over two real processes."""

from __future__ import annotations

import json
from pathlib import Path

from engine.bench.__main__ import main
from engine.bench.throughput.shapes import shape

TINY = shape("llada-tiny")
SMALL = [
    "--shape",
    "llada-tiny",
    "--layout",
    "tp2",
    "--batch",
    "2",
    "--prompt",
    "8",
    "--generate",
    "4",
    "--repeat",
    "1",
]


def test_two_ranks_give_the_tokens_of_one_and_send_little_more_than_they_have_to(tmp_path: Path) -> None:
    output = tmp_path / "ranks.json"
    assert main(["ranks", *SMALL, "--output", str(output)]) == 0
    summary = json.loads(output.read_text())
    (one,) = summary["results"]
    assert summary["ok"]
    assert one["tokens_equal"]
    assert one["ranks"] == 2
    assert one["collectives"] == 1 + 2 * TINY.num_layers + 1
    least = (one["least"]["layers"] + one["least"]["vocabulary"]) / one["forwards"]
    assert 1 <= one["tensor_bytes"] / least < 1.3
    assert one["plan_bytes"] > one["message_bytes"] > 0
    assert all(one[key] > 0 for key in ("compute_s", "exchange_s", "send_s", "encode_s", "decode_s", "beat_s"))
