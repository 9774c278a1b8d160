"""deployments/work.py: shapes of unchecked requests, and how fast a replica works."""

from __future__ import annotations

import pytest

from deployments.work import RateMeter, scaled, shape_of
from engine.work import WorkShape

SHAPE = WorkShape(prompt_tokens=32, max_tokens=64, block_length=16, cache="none")


def test_a_rate_is_positions_per_second_of_work() -> None:
    meter = RateMeter(prior=2000.0)
    assert meter.per_s == 2000.0
    for _ in range(300):
        meter.worked(1.0)
        meter.finished(500)
    assert meter.per_s == pytest.approx(500, rel=0.05)


def test_shapes_of_unchecked_options() -> None:
    default = {"cache": "dual", "block_length": 32}
    assert shape_of({}, default, 5, 10).block_length == 32
    wrong = shape_of({"cache": 3, "block_length": "many"}, default, 5, 10)
    assert (wrong.cache, wrong.block_length) == ("none", 32)
    assert (
        shape_of({"threshold": 0.9}, default, 5, 10).strategy != shape_of({"threshold": 0.8}, default, 5, 10).strategy
    )


def test_what_is_left_of_a_sequence() -> None:
    left = scaled(SHAPE, 16)
    assert (left.prompt_tokens, left.max_tokens) == (80, 16)
    assert scaled(SHAPE, 0).max_tokens == 1
