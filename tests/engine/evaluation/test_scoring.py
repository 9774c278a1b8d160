"""Scoring and intervals."""

from __future__ import annotations

import pytest

from engine.evaluation.scoring import matches, wilson_interval


@pytest.mark.parametrize(
    ("answer", "completion", "right"),
    [
        ("2 + 3 = 5.\n#### 5", "So it is five.\n#### 5", True),
        ("2 + 3 = 5.\n#### 5", "2 + 3 = 5.\n#### 6", False),
        ("2 + 3 = 5.\n#### 5", "2 + 3 = 5.", False),
        ('{"a": 1, "b": "x"}', '{"b": "x",  "a": 1}', True),
        ('{"a": 1}', '{"a": "1"}', False),
        ('{"a": 1}', '{"a": 1', False),
        ("The answer.", " The answer.\n", True),
        ("The answer.", "the answer.", False),
    ],
)
def test_matches(answer: str, completion: str, right: bool) -> None:
    assert matches(answer, completion) is right


def test_wilson_interval_of_known_counts() -> None:
    low, high = wilson_interval(90, 100)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)
    assert wilson_interval(0, 10).low == 0.0
    assert wilson_interval(10, 10).high == 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)
