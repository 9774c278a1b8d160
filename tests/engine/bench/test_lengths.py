"""Workloads of completions that differ in length."""

from __future__ import annotations

import argparse

import pytest

from engine.bench.lengths import MIXES, add_mix, completion_lens, in_words


def test_the_longest_comes_last_and_the_others_as_the_mix_says() -> None:
    assert completion_lens(4, 64, "none") == [64] * 4
    assert completion_lens(4, 64, "even") == [28, 40, 52, 64]
    assert completion_lens(4, 64, "skewed") == [16, 21, 32, 64]
    assert completion_lens(3, 1, "skewed") == [1, 1, 1]


@pytest.mark.parametrize("mix", MIXES)
def test_a_single_completion_is_the_longest(mix: str) -> None:
    assert completion_lens(1, 100, mix) == [100]


@pytest.mark.parametrize(
    ("words", "mix", "says"),
    [
        ([], "none", "completions 8"),
        (["--mixed"], "even", "completions up to 8 (even)"),
        (["--mixed", "skewed"], "skewed", "completions up to 8 (skewed)"),
    ],
)
def test_mixed_alone_is_even(words: list[str], mix: str, says: str) -> None:
    parser = argparse.ArgumentParser()
    add_mix(parser)
    found = parser.parse_args(words).mixed
    assert (found, in_words(8, found)) == (mix, says)
