"""Reports from finished outputs, and data sets from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.evaluation.datasets import held_out_set, read_jsonl
from engine.evaluation.evaluate import report
from engine.evaluation.tasks.sample import Sample
from engine.outputs import RequestOutput, Usage


def output(text: str, tokens: int, forwards: int) -> RequestOutput:
    usage = Usage(completion_tokens=tokens, forwards=forwards)
    return RequestOutput(request_id="r", text=text, finish_reason="stop", usage=usage)


def test_report_counts_per_kind_and_overall() -> None:
    samples = [Sample("a", "p", "x"), Sample("b", "q", "y"), Sample("a", "r", "z")]
    outputs = [output("x", 4, 2), output("wrong", 6, 2), output("z", 2, 2)]
    result = report(samples, outputs, {"decoder": "threshold"}, seconds=2.0)
    first, second = result.kinds
    assert (first.kind, first.right, first.total, first.mean_forwards, first.tokens_per_forward) == (
        "a",
        2,
        2,
        2.0,
        1.5,
    )
    assert (second.kind, second.accuracy) == ("b", 0.0)
    assert (result.overall.right, result.overall.total, result.tokens_per_second) == (2, 3, 6.0)
    assert "66.7%" in result.to_table()
    assert json.loads(json.dumps(result.to_dict()))["kinds"]["a"]["accuracy"] == 1.0


def test_held_out_set_is_grouped_by_kind() -> None:
    samples = held_out_set(["json", "code"], per_kind=3)
    assert [sample.kind for sample in samples] == ["json"] * 3 + ["code"] * 3


def test_jsonl_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"prompt": "p", "answer": "a", "kind": "k"}\n\n{"prompt": "q", "answer": "b"}\n')
    assert read_jsonl(path) == [Sample("k", "p", "a"), Sample("default", "q", "b")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "must be an object"),
        ('{"prompt": "p"}', "'answer'"),
        ('{"prompt": "p", "answer": 3}', "'answer'"),
        ('{"prompt": "p", "answer": "a", "extra": 1}', "unknown field 'extra'"),
        ("", "has no lines"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(line)
    with pytest.raises(ConfigError, match=message):
        read_jsonl(path)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_jsonl(tmp_path / "none.jsonl")
