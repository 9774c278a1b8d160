"""Every task in the table: answers that score, follow from the prompt, and are right."""

from __future__ import annotations

import json
import random
import re

import pytest

from engine.errors import ConfigError
from engine.evaluation.scoring import matches
from engine.evaluation.tasks.sample import is_held_out
from engine.evaluation.tasks.table import TASKS, held_out_samples


@pytest.mark.parametrize("kind", TASKS)
def test_one_prompt_has_one_answer_and_it_matches_itself(kind: str) -> None:
    rng, answers = random.Random(0), {}
    for _ in range(500):
        prompt, answer = TASKS[kind].generate(rng)
        assert answers.setdefault(prompt, answer) == answer
        assert matches(answer, f" {answer}\n")
        assert not matches(answer, answer + "9")


@pytest.mark.parametrize("kind", TASKS)
def test_held_out_prompts_are_distinct_and_held_out(kind: str) -> None:
    samples = held_out_samples(kind, 20)
    assert samples
    assert len({sample.prompt for sample in samples}) == len(samples)
    assert all(is_held_out(sample.prompt) for sample in samples)
    assert samples == held_out_samples(kind, 20)


def test_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="arithmetic"):
        held_out_samples("sudoku", 1)


@pytest.mark.parametrize("kind", ["arithmetic", "word_problem", "conversion"])
def test_written_steps_are_true_and_lead_to_the_result(kind: str) -> None:
    rng = random.Random(1)
    for _ in range(300):
        _, answer = TASKS[kind].generate(rng)
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", answer)
        assert steps
        for left, sign, right, result in steps:
            value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}
            assert int(result) == (value[sign] if sign in value else int(left) / int(right))
        assert answer.endswith(f"\n#### {steps[-1][3]}")


def test_json_answers_hold_only_words_of_the_prompt() -> None:
    rng = random.Random(2)
    for _ in range(200):
        prompt, answer = TASKS["json"].generate(rng)
        assert all(str(value) in prompt for value in json.loads(answer).values())


def test_code_answers_compile_and_define_the_asked_function() -> None:
    rng = random.Random(3)
    for _ in range(200):
        prompt, answer = TASKS["code"].generate(rng)
        compile(answer, "answer", "exec")
        name = re.search(r"function (\w+)\(x\)", prompt)
        assert name
        assert answer.startswith(f"def {name[1]}(x):")
