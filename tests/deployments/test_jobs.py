"""deployments/jobs.py: what is validated before an engine is asked."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.config import AppConfig
from deployments.jobs import JobFields, build_job
from deployments.messages import ChatMessage, Job, Prompt
from engine.errors import InvalidRequestError

CONFIG = AppConfig.parse({"models": "m=/x", "max_sequences": 6, "default_timeout_s": 20, "max_timeout_s": 60})


def build(**fields: Any) -> Job:
    given: dict[str, Any] = {"request_id": "r", "model": None, "prompts": [Prompt(text="hi")], "sampling": {}} | fields
    return build_job(JobFields(**given), CONFIG)


def test_defaults() -> None:
    job = build()
    assert job.model == "m"
    assert job.timeout_s == 20
    assert len(job.calls) == 1
    assert job.calls[0].sampling.seed is None, "nothing is drawn at temperature 0"


def test_choices_of_a_prompt_are_adjacent_and_draw_with_their_own_seeds() -> None:
    job = build(prompts=[Prompt(text="a"), Prompt(text="b")], num_choices=3, sampling={"temperature": 1.0, "seed": 7})
    assert [(call.prompt.text, call.sampling.seed) for call in job.calls] == [
        ("a", 7), ("a", 8), ("a", 9), ("b", 7), ("b", 8), ("b", 9),
    ]  # fmt: skip
    assert len({call.request_id for call in job.calls}) == 6


def test_drawing_without_a_seed_differs_between_requests() -> None:
    seeds = {call.sampling.seed for _ in range(2) for call in build(num_choices=2, sampling={"temperature": 1}).calls}
    assert len(seeds) == 4
    assert None not in seeds


def test_the_same_request_id_twice_gives_different_keys() -> None:
    first, second = build(request_id="same"), build(request_id="same")
    assert first.request_id == second.request_id
    assert first.key != second.key
    assert first.calls[0].request_id != second.calls[0].request_id


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompts": [Prompt(text="")]}, "prompt"),
        ({"prompts": [Prompt(token_ids=())]}, "prompt"),
        ({"prompts": [Prompt(messages=())]}, "messages"),
        ({"prompts": [Prompt(text="a\ud800b")]}, "prompt"),
        ({"prompts": [Prompt(messages=(ChatMessage("user", "\udfff"),))]}, "messages"),
        ({"num_choices": 7}, "n"),
        ({"sampling": {"max_tokens": 0}}, "max_tokens"),
        ({"sampling": {"temperature": -1}}, "temperature"),
        ({"sampling": {"temperature": float("nan")}}, "temperature"),
        ({"sampling": {"top_p": 1.5}}, "top_p"),
        ({"sampling": {"top_k": -1}}, "top_k"),
        ({"sampling": {"stop": ("a", "")}}, "stop"),
        ({"timeout_ms": 61_000}, "timeout_ms"),
    ],
)
def test_wrong_values_name_their_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build(**fields)
    assert caught.value.param == param
