"""engine/work.py: what a sequence costs, and learning it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.outputs import Usage
from engine.work import MAX_STRATEGIES, Expectation, WorkModel, WorkShape, predict_positions, predict_steps

SHAPE = WorkShape(prompt_tokens=32, max_tokens=64, block_length=16, cache="none")
TWO = Expectation(tokens_per_forward=2.0, fill=1.0)


@pytest.mark.parametrize(
    ("cache", "positions"),
    [
        ("none", 32 * 96),
        ("dual", 4 * (96 + 7 * 16)),
        ("prefix", 4 * (96 + 7 * 32)),
        ("window", 32 * 48),
        ("block", 32 + 4 * 16 * 9),
    ],
)
def test_positions_follow_the_rows_that_policies_plan(cache: str, positions: float) -> None:
    """64 tokens at 2 per forward are 32 steps: 4 blocks of 8."""
    assert predict_positions(replace(SHAPE, cache=cache), TWO) == positions


def test_what_is_not_known_counts_as_the_most() -> None:
    unknown = predict_positions(replace(SHAPE, cache="new"), TWO)
    assert unknown == predict_positions(SHAPE, TWO)
    assert all(
        predict_positions(replace(SHAPE, cache=cache), TWO) <= unknown
        for cache in ("dual", "prefix", "drift", "window")
    )


@given(
    st.integers(0, 4096),
    st.integers(1, 4096),
    st.integers(1, 256),
    st.sampled_from(["none", "dual", "prefix", "vicinity", "drift", "window", "block"]),
    st.floats(0, 64),
    st.floats(0, 1),
)
def test_predictions_are_positive_and_grow_with_the_request(
    prompt: int, tokens: int, block: int, cache: str, tpf: float, fill: float
) -> None:
    shape = WorkShape(prompt_tokens=prompt, max_tokens=tokens, block_length=block, cache=cache)
    expected = Expectation(tpf, fill)
    work = predict_positions(shape, expected)
    assert 0 < work < float("inf")
    assert predict_positions(replace(shape, prompt_tokens=prompt + 100), expected) >= work


def test_predictions_approach_what_is_measured() -> None:
    model = WorkModel()
    fast = replace(SHAPE, strategy="fast")
    before = model.predict(fast)
    usage = Usage(completion_tokens=64, forwards=8, positions_computed=800)
    for _ in range(40):
        model.learn(fast, usage)
    assert model.expect("fast").tokens_per_forward == pytest.approx(8.0, rel=0.01)
    assert model.predict(fast) == pytest.approx(8 * 96, rel=0.02)
    assert model.predict(fast) < before
    assert model.expect("other").tokens_per_forward == pytest.approx(8.0, rel=0.01), "as the others behave"


def test_a_sequence_without_forwards_teaches_nothing() -> None:
    model = WorkModel()
    model.learn(SHAPE, Usage())
    assert model.expect("") == Expectation()


def test_clients_cannot_fill_the_memory_with_strategies() -> None:
    model = WorkModel()
    for number in range(MAX_STRATEGIES + 10):
        model.learn(replace(SHAPE, strategy=str(number)), Usage(completion_tokens=8, forwards=2))
    assert len(model._by_strategy) == MAX_STRATEGIES
    assert "0" not in model._by_strategy


def test_steps_follow_the_tokens_of_a_forward() -> None:
    assert predict_steps(SHAPE, TWO) == 32
    assert predict_steps(SHAPE, Expectation(tokens_per_forward=4.0, fill=0.5)) == 8
    assert predict_steps(replace(SHAPE, max_tokens=1), Expectation(tokens_per_forward=100.0)) == 1


def test_families_are_cache_policies_and_lengths() -> None:
    assert SHAPE.family == replace(SHAPE, max_tokens=80).family
    assert SHAPE.family != replace(SHAPE, max_tokens=512).family
    assert SHAPE.family != replace(SHAPE, cache="dual").family
