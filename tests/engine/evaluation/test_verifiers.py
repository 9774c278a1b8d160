"""Marks: by text, by number, and by running code."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.evaluation.datasets import read_data
from engine.evaluation.tasks.sample import Sample
from engine.evaluation.verifiers import CodeVerifier, Verdict, make_verifier

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "mbpp"])
def test_the_data_sets_own_answers_are_right_and_others_are_not(name: str) -> None:
    data = read_data(DATA / f"{name}.jsonl")
    assert data.format.name == name
    verifier = make_verifier(data.format.verifier, workers=2)
    answers = [sample.answer for sample in data.samples]
    told = [f"Sure.\n{data.format.reply(sample)}" for sample in data.samples]
    samples = [*data.samples, *data.samples, *data.samples]
    seen: list[tuple[int, int]] = []
    verdicts = verifier.judge_all(
        samples, [*answers, *told, *["    return 3.5" for _ in answers]], lambda *step: seen.append(step)
    )
    right = 2 * len(answers)
    assert [verdict.right for verdict in verdicts] == [True] * right + [False] * len(answers)
    assert all(verdict.reason for verdict in verdicts[right:])
    assert seen == ([(done, len(samples)) for done in range(1, len(samples) + 1)] if name != "gsm8k" else [])


def test_reasons() -> None:
    number, exact = make_verifier("number"), make_verifier("exact")
    sample = Sample("k", "p", "#### 4")
    assert number.judge(sample, "none") == Verdict(False, "no number")
    assert number.judge(sample, "It is 5") == Verdict(False, "wrong")
    assert number.verify(sample, "It is 4.0")
    assert not exact.verify(sample, "It is 4")
    assert exact.verify(sample, "#### 4")


def test_reasons_of_code() -> None:
    verifier = CodeVerifier()
    (sample, *_) = read_data(DATA / "humaneval.jsonl").samples
    assert verifier.judge(sample, " ") == Verdict(False, "no code")
    assert verifier.judge(sample, "    return 0").reason == "wrong: AssertionError"
    assert verifier.judge(sample, "    return (").reason.startswith("error: SyntaxError: ")
