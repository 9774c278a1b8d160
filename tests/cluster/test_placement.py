"""Bundles, the order of ranks, and what a cluster lacks."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.placement import GroupPlacement, order_ranks
from engine.errors import ConfigError


def placement(ranks: int, **options: Any) -> GroupPlacement:
    return GroupPlacement(**({"world_size": ranks, "num_cpus": 2} | options))


def test_every_rank_has_a_bundle_of_its_own() -> None:
    assert placement(3, num_cpus=0.5).bundles == [{"CPU": 0.5}] * 3
    assert placement(2, num_gpus=1).bundles == [{"CPU": 2, "GPU": 1}] * 2
    assert placement(2, num_cpus=0, num_gpus=1).bundles == [{"GPU": 1}] * 2


@pytest.mark.parametrize(
    ("options", "param"),
    [({"num_gpus": 0.5}, "num_gpus"), ({"num_gpus": 2}, "num_gpus"), ({"num_cpus": 0}, "num_cpus")],
)
def test_what_ranks_cannot_reserve_is_named(options: dict[str, float], param: str) -> None:
    with pytest.raises(ConfigError) as raised:
        placement(2, **options)
    assert raised.value.param == param


def test_one_rank_may_reserve_anything() -> None:
    assert placement(1, num_cpus=0).num_cpus == 0
    assert placement(1, num_gpus=0.5).num_gpus == 0.5


@pytest.mark.parametrize(
    ("nodes", "tensor", "ordered"),
    [
        ("A", 1, "A"),
        ("AAAA", 2, "AAAA"),
        ("AABB", 2, "AABB"),
        ("ABAB", 2, "AABB"),
        ("ABABAB", 2, "AABBAB"),  # three bundles on each: one pair must be divided
        ("ABBB", 2, "ABBB"),
        ("ABCB", 2, "ACBB"),  # the lonely ones share a group
        ("ABBBBB", 4, "ABBBBB"),
        ("ABBBBCCC", 4, "ACCCBBBB"),
        ("ABBBB", 5, "ABBBB"),
        ("ABCABC", 1, "AABBCC"),
    ],
)
def test_tensor_groups_lie_on_one_node_where_they_can(nodes: str, tensor: int, ordered: str) -> None:
    bundles = order_ranks(nodes, tensor)
    assert "".join(nodes[bundle] for bundle in bundles) == ordered
    assert sorted(bundles) == list(range(len(nodes)))
    assert bundles[0] == 0, "rank 0 is the replica itself, which is in bundle 0"


ONE, TWO, FOUR = {"CPU": 2.0, "GPU": 1.0}, {"CPU": 4.0}, {"CPU": 8.0, "memory": 1e9}


@pytest.mark.parametrize(
    ("strategy", "ranks", "nodes", "room"),
    [
        ("STRICT_PACK", 4, [FOUR], None),
        ("STRICT_PACK", 4, [TWO, TWO], 2),
        ("PACK", 4, [TWO, TWO], None),
        ("SPREAD", 4, [TWO, ONE], 3),
        ("STRICT_SPREAD", 2, [FOUR], 1),
        ("STRICT_SPREAD", 2, [FOUR, ONE], None),
        ("PACK", 2, [], 0),
    ],
)
def test_a_cluster_that_is_too_small_is_told_what_is_missing(
    strategy: Any, ranks: int, nodes: list[dict[str, float]], room: int | None
) -> None:
    shortage = placement(ranks, strategy=strategy).shortage(nodes)
    if room is None:
        assert shortage is None
        return
    assert shortage is not None
    assert f"{ranks} ranks of 2 CPU each" in shortage
    assert f"room for {room}; missing: {2 * (ranks - room)} CPU" in shortage
    assert ("placement_strategy" in shortage) == strategy.startswith("STRICT")


def test_a_missing_gpu_is_named() -> None:
    shortage = placement(2, num_cpus=1, num_gpus=1).shortage([ONE, TWO])
    assert shortage is not None
    assert shortage.endswith("missing: 1 CPU and 1 GPU")
    assert placement(1, num_cpus=0.1).shortage([{"CPU": 0.1}]) is None


@pytest.mark.parametrize(
    ("strategy", "left"),
    [("STRICT_PACK", [4, 2, 4]), ("PACK", [4, 2, 4]), ("STRICT_SPREAD", [2, 6, 2]), ("SPREAD", [4, 2, 4])],
)
def test_what_is_reserved_is_gone(strategy: Any, left: list[float]) -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 8.0}, {"CPU": 4.0}]
    placement(3, strategy=strategy).reserve(nodes)
    assert [node["CPU"] for node in nodes] == left


def test_a_rank_that_reserves_nothing_fits_anywhere() -> None:
    assert placement(1, num_cpus=0).shortage([{}]) is None
