"""Derived numbers of outputs."""

from __future__ import annotations

from engine.outputs import RequestOutput, Usage


def test_tokens_per_forward() -> None:
    assert Usage(completion_tokens=12, forwards=5).tokens_per_forward == 2.4
    assert Usage().tokens_per_forward == 0.0


def test_an_output_is_final_when_it_has_a_reason() -> None:
    assert not RequestOutput(request_id="a").finished
    assert RequestOutput(request_id="a", finish_reason="stop").finished
