"""The report of a distillation over answers that are made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from engine.evaluation.comparison import Entry
from engine.evaluation.distillation import HEADER, Distillation, ModelRun, Role
from engine.evaluation.distillation_plot import write_distillation_plot
from engine.evaluation.report import Answer, EvalReport
from engine.evaluation.resampling import Bootstrap, Results, accuracy, mcnemar, tokens_per_forward
from engine.evaluation.scoring import wilson_interval

NUM_PROMPTS = 200


def run(role: Role, name: str, right: Sequence[bool], forwards: int) -> ModelRun:
    """Answers of 20 tokens each."""
    answers = tuple(Answer(kind="fact", right=each, forwards=forwards, tokens=20, positions=100) for each in right)
    return ModelRun(
        role, name, (Entry("slow", EvalReport({}, answers, 10.0)), Entry("fast", EvalReport({}, answers, 5.0)))
    )


def rights(wrong: int) -> list[bool]:
    return [index >= wrong for index in range(NUM_PROMPTS)]


@pytest.fixture
def found() -> Distillation:
    return Distillation(
        (
            run("teacher", "t", rights(20), 10),
            run("distilled", "d0", rights(24), 5),
            run("distilled", "d1", rights(20), 5),
            run("control", "c0", rights(20), 8),
        )
    )


def test_the_numbers_are_those_of_the_answers(found: Distillation) -> None:
    teacher, distilled, control = (found.measure(0, role) for role in found.roles)
    assert teacher.accuracy == pytest.approx(0.9)
    assert teacher.interval == wilson_interval(180, 200)
    assert (teacher.difference, teacher.speed_up, teacher.tests) == (None, None, ())
    assert distilled.accuracy == pytest.approx(0.89)
    assert distilled.difference is not None
    assert distilled.difference.value == pytest.approx(-0.01)
    assert distilled.difference.interval.low <= -0.01 <= distilled.difference.interval.high <= 0.0
    assert [(test.gained, test.lost) for test in distilled.tests] == [(0, 4), (0, 0)]
    assert distilled.tpf.value == pytest.approx(4.0)
    assert distilled.speed_up is not None
    assert distilled.speed_up.value == pytest.approx(2.0)
    assert control.forwards.value == pytest.approx(8.0)
    contrast = found.contrast(0)
    assert contrast is not None
    assert contrast.accuracy.value == pytest.approx(-0.01)
    assert contrast.speed_up.value == pytest.approx(1.6)


def test_the_page_has_a_row_for_each_strategy_and_role(found: Distillation) -> None:
    rows = found.rows()
    assert [row[:2] for row in rows[:3]] == [("slow", "teacher"), ("slow", "distilled (2)"), ("slow", "control")]
    assert len(rows) == 6
    assert all(len(row) == len(HEADER) for row in rows)
    page = found.to_markdown()
    assert page.startswith("200 held-out prompts")
    assert "distilled: d0, d1" in page
    assert "| slow | -1.0 (" in page
    assert json.loads(json.dumps(found.to_dict()))["strategies"][1]["roles"]["distilled"]["tpf_ratio"]["value"] == 2.0


def test_without_a_control_there_is_no_contrast() -> None:
    found = Distillation((run("teacher", "t", rights(20), 10), run("distilled", "d", rights(20), 5)))
    assert found.contrast(0) is None
    assert "control" not in found.to_markdown()


def test_the_picture_is_the_same_for_the_same_numbers(found: Distillation, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        write_distillation_plot(found, tmp_path / name)
    assert (tmp_path / "a.svg").read_text() == (tmp_path / "b.svg").read_text()
    assert all(role in (tmp_path / "a.svg").read_text() for role in found.roles)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 9), (10, 10), (12, 1)])
def test_mcnemar_is_the_exact_binomial_test_of_the_disagreements(gained: int, lost: int) -> None:
    first = np.array([0.0] * gained + [1.0] * lost + [1.0, 0.0])
    second = np.array([1.0] * gained + [0.0] * lost + [1.0, 0.0])
    test = mcnemar(first, second)
    assert (test.gained, test.lost) == (gained, lost)
    assert test.p_value == pytest.approx(binomtest(gained, gained + lost).pvalue if gained + lost else 1.0)


def test_the_bootstrap_agrees_with_the_normal_interval_of_a_share() -> None:
    right = np.array([rights(60)], dtype=float)
    ones = np.ones_like(right)
    estimate = Bootstrap(NUM_PROMPTS).estimate(Results(right, ones, ones), accuracy)
    spread = 1.96 * (0.7 * 0.3 / NUM_PROMPTS) ** 0.5
    assert estimate.value == pytest.approx(0.7)
    assert estimate.interval.low == pytest.approx(0.7 - spread, abs=0.01)
    assert estimate.interval.high == pytest.approx(0.7 + spread, abs=0.01)


def test_differences_are_paired_by_prompt() -> None:
    """Two models that are right on the same prompts differ by nothing, however much prompts differ."""
    right = np.array([rights(100)], dtype=float)
    forwards = np.arange(1.0, NUM_PROMPTS + 1)[None]
    first, second = Results(right, forwards, forwards), Results(right, forwards / 2, forwards)
    draws = Bootstrap(NUM_PROMPTS)
    assert draws.difference(first, second, accuracy).interval == (0.0, 0.0)
    ratio = draws.ratio(first, second, tokens_per_forward)
    assert ratio.interval.low == pytest.approx(2.0)
    assert ratio.interval.high == pytest.approx(2.0)
