"""The number that a solution arrives at."""

from __future__ import annotations

from decimal import Decimal

import pytest

from engine.evaluation.numbers import final_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 and 4 make 7.\n#### 7", "7"),
        ("#### $1,234.50 dollars", "1234.50"),
        ("####\n-3", "-3"),
        ("#### 5\nQuestion: what of 9?\n#### 9", "5"),
        ("The answer is \\boxed{18} out of 20", "18"),
        ("first \\boxed{3}, then \\boxed{1,000}", "1000"),
        ("It takes 3 hours and costs $12.", "12"),
        ("so 10-5", "5"),
        ("so it falls to -5 degrees", "-5"),
        ("a share of .5", "0.5"),
        ("12,34", "34"),
        ("In 2024 there were 1,000,000 of them.", "1000000"),
    ],
)
def test_the_answer_is_found(text: str, number: str) -> None:
    assert final_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "none at all", "7 apples\n#### none", "7 apples in \\boxed{x}"])
def test_no_number_is_none(text: str) -> None:
    assert final_number(text) is None


def test_ways_to_write_a_number_are_equal() -> None:
    assert final_number("#### 1,500") == final_number("It is 1500.00")
