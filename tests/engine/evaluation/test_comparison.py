"""Several strategies side by side: tables, front, CSV, JSON, files and the picture."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.evaluation.comparison import HEADER, Comparison, Entry
from engine.evaluation.files import write_files
from engine.evaluation.plot import draw
from engine.evaluation.report import Answer, EvalReport

KINDS = ("sum", "story")


def entry(label: str, rights: int, forwards: int, prompts: int = 20) -> Entry:
    """The first ``rights`` of the prompts are right; each answer has 12 tokens."""
    answers = [
        Answer(KINDS[place % 2], right=place < rights, forwards=forwards + place % 2, tokens=12, positions=96)
        for place in range(prompts)
    ]
    return Entry(label, EvalReport({"decoder": label}, tuple(answers), seconds=2.0))


SLOW, FAST, BAD = entry("slow & sure", 19, 12), entry("threshold,threshold=0.8", 17, 4), entry("<bad> $_{", 10, 6)
COMPARISON = Comparison("tiny", (SLOW, FAST, BAD))


def test_the_table_has_a_row_per_strategy_with_the_difference_to_the_first() -> None:
    rows = {row[0]: dict(zip(HEADER, row, strict=True)) for row in COMPARISON.rows()}
    assert list(rows) == ["slow & sure", "threshold,threshold=0.8", "<bad> $_{"]
    assert rows["slow & sure"]["against the first"] == ""
    assert rows["slow & sure"]["accuracy"] == "95.0%"
    assert rows["threshold,threshold=0.8"]["against the first"].startswith("-10.0 (")
    assert (rows["<bad> $_{"]["NFE"], rows["<bad> $_{"]["TPF"]) == ("6.5", "1.85")
    assert (rows["<bad> $_{"]["positions/token"], rows["<bad> $_{"]["tokens/s"]) == ("8.0", "120")
    assert "sum" in COMPARISON.to_table()
    assert "| <bad> $_{ | 50.0% |" in COMPARISON.to_markdown()


def test_accuracy_by_kind() -> None:
    assert COMPARISON.kind_rows()[0] == ("strategy", "sum", "story")
    assert COMPARISON.kind_rows()[1] == ("slow & sure", "100%", "90%")


def test_the_front_leaves_out_what_another_beats() -> None:
    assert [one.label for one in COMPARISON.pareto_front()] == ["slow & sure", "threshold,threshold=0.8"]
    assert Comparison("tiny", (BAD,)).pareto_front() == (BAD,)
    assert Comparison("tiny", (entry("a", 10, 4), entry("b", 10, 8))).pareto_front()[0].label == "a"


def test_json_and_csv_say_the_same() -> None:
    record = json.loads(json.dumps(COMPARISON.to_dict()))
    lines = list(csv.DictReader(io.StringIO(COMPARISON.to_csv())))
    assert record["prompts"] == 20
    for one, line in zip(record["strategies"], lines, strict=True):
        assert line["strategy"] == one["label"]
        assert float(line["accuracy"]) == one["overall"]["accuracy"]
        assert float(line["accuracy_story"]) == one["kinds"]["story"]["accuracy"]
        assert float(line["nfe"]) == pytest.approx(one["overall"]["nfe"], abs=0.01)
        assert float(line["accuracy_difference_low"]) == one["difference_to_first"]["accuracy"]["interval"][0]
    assert lines[1]["tokens_per_forward_low"] < lines[1]["tokens_per_forward"] < lines[1]["tokens_per_forward_high"]


def test_strategies_over_different_prompts_are_not_compared() -> None:
    with pytest.raises(AssertionError, match="different prompts"):
        Comparison("tiny", (SLOW, entry("other", 3, 3, prompts=5)))


def test_the_picture_shows_each_strategy_where_it_is() -> None:
    (axes,) = draw(COMPARISON).axes
    points = [container.lines[0] for container in axes.containers]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points] == [
        (one.report.overall.tokens_per_forward, 100 * one.report.overall.accuracy) for one in COMPARISON.entries
    ]
    (front,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
    corners = set(zip(front.get_xdata(), front.get_ydata(), strict=True))
    assert {(points[place].get_xdata()[0], points[place].get_ydata()[0]) for place in (0, 1)} <= corners


def test_files_hold_the_results_and_the_labels(tmp_path: Path) -> None:
    paths = {path.name: path for path in write_files(COMPARISON, tmp_path / "new" / "folder")}
    assert json.loads(paths["results.json"].read_text()) == COMPARISON.to_dict()
    assert paths["results.csv"].read_text() == COMPARISON.to_csv()
    assert paths["results.md"].read_text() == COMPARISON.to_markdown() + "\n"
    assert paths["accuracy_vs_tpf.png"].read_bytes().startswith(b"\x89PNG")
    drawn = " ".join(ET.fromstring(paths["accuracy_vs_tpf.svg"].read_text()).itertext())
    for label in [*(one.label for one in COMPARISON.entries), "Pareto front", "tokens per forward (TPF)", "20 prompts"]:
        assert label in re.sub(r"\s+", " ", drawn)


def test_several_samples_of_a_prompt_give_pass_at_k(tmp_path: Path) -> None:
    """Four answers to each of three prompts: all right, one right, none right."""
    rights = [True] * 4 + [True, False, False, False] + [False] * 4
    answers = tuple(Answer("sum", right, forwards=2, tokens=4, positions=8, text=str(right)) for right in rights)
    wrong = tuple(Answer("sum", right=False, forwards=2, tokens=4, positions=8) for _ in rights)
    some, none = (
        Entry(label, EvalReport({}, one, 1.0, num_samples=4)) for label, one in [("a", answers), ("b", wrong)]
    )
    comparison = Comparison("tiny", (some, none))
    overall = some.report.overall
    assert (comparison.num_prompts, overall.right, overall.total) == (3, 5, 12)
    assert overall.accuracy == pytest.approx(overall.pass_at(1).value) == pytest.approx(5 / 12)
    assert {k: estimate.value for k, estimate in overall.passes.items()} == pytest.approx({1: 5 / 12, 4: 2 / 3})
    assert comparison.accuracy_difference(none).value == pytest.approx(-5 / 12)
    assert comparison.header[-1] == some.report.header[-1] == "pass@4"
    assert some.report.rows()[0][-1].startswith("66.7% (")
    (line, _) = csv.DictReader(io.StringIO(comparison.to_csv()))
    assert (float(line["accuracy"]), float(line["pass_at_4"])) == pytest.approx((5 / 12, 2 / 3), abs=1e-4)
    paths = {path.name: path for path in write_files(comparison, tmp_path)}
    told = [json.loads(line) for line in paths["answers.jsonl"].read_text().splitlines()]
    assert [one["prompt"] for one in told if one["strategy"] == "a"] == [0] * 4 + [1] * 4 + [2] * 4
    assert told[0]["text"] == "True"


def test_equal_results_give_equal_files(tmp_path: Path) -> None:
    first, second = write_files(COMPARISON, tmp_path / "a"), write_files(COMPARISON, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_one_prompt_can_be_drawn(tmp_path: Path) -> None:
    assert write_files(Comparison("tiny", (entry("alone", 1, 3, prompts=1),)), tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="taken"):
        write_files(COMPARISON, tmp_path / "taken")
