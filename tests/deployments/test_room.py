"""Whether replicas fit is said before anybody waits for them."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.config import AppConfig
from deployments.room import check_room, shortages
from engine.errors import ConfigError

LAPTOP = [{"CPU": 2.0, "memory": 1e9}]


def config(*models: dict[str, Any]) -> AppConfig:
    return AppConfig.parse({"models": [{"id": f"m{number}", "path": "/x"} | one for number, one in enumerate(models)]})


def test_the_embedded_models_fit_a_laptop_over_two_ranks_each() -> None:
    engine = {"tensor_parallel_size": 2}
    check_room(config({"engine": engine}, {"engine": engine}), LAPTOP)


def test_a_model_that_does_not_fit_is_named_with_what_is_missing() -> None:
    sharded = {"engine": {"tensor_parallel_size": 4}, "num_cpus": 1}
    with pytest.raises(
        ConfigError, match=r"m1: 4 ranks of 1 CPU each do not fit on one node.*room for 1; missing: 3 CPU"
    ):
        check_room(config({}, sharded), LAPTOP)


def test_models_and_replicas_share_the_nodes() -> None:
    assert list(shortages(config({"num_replicas": 3}, {"num_cpus": 1}), LAPTOP)) == ["m1"]
    assert list(shortages(config({"num_cpus": 1, "num_replicas": 3}), LAPTOP)) == ["m0"]
    autoscaled = {"num_cpus": 1, "autoscaling": {"min_replicas": 0, "max_replicas": 9}}
    assert shortages(config(autoscaled), LAPTOP) == {}


def test_a_model_that_finds_no_room_leaves_it_to_the_next() -> None:
    assert list(shortages(config({"num_cpus": 3}, {"num_cpus": 2}), LAPTOP)) == ["m0"]
