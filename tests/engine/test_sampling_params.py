"""Bounds of what a request may ask for."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from engine.sampling_params import SamplingParams

BAD: list[tuple[str, Any]] = [
    ("max_tokens", 0),
    ("max_tokens", 1.5),
    ("temperature", -0.1),
    ("temperature", 11),
    ("temperature", float("nan")),
    ("top_k", -1),
    ("top_k", 10**30),
    ("top_p", -0.1),
    ("top_p", 1.1),
    ("top_p", float("nan")),
    ("seed", 0.5),
    ("stop", "x"),
    ("confidence", "best"),
    ("temprature", 1),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_wrong_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        SamplingParams(**{name: value})  # type: ignore[arg-type]


def test_defaults_are_greedy_and_cannot_be_changed() -> None:
    sampling = SamplingParams()
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.noise) == (0, 0, 1, True)
    with pytest.raises(FrozenInstanceError):
        sampling.top_k = 3  # type: ignore[misc]


def test_the_schema_describes_every_public_setting() -> None:
    properties = TypeAdapter(SamplingParams).json_schema()["properties"]
    for name in ("max_tokens", "temperature", "top_k", "top_p", "seed", "stop", "stop_token_ids", "ignore_eos"):
        assert properties[name]["description"], name
