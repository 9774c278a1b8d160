"""deployments/doctor/room.py and the parts of cluster.py that need no Ray; with Ray: tests/integration."""

from __future__ import annotations

import pytest

from deployments.config import AppConfig
from deployments.doctor.cluster import Probe, check_cluster, check_probes
from deployments.doctor.finding import Status, Subject
from deployments.doctor.room import Replicas, check_room, placed, replicas_at_start
from deployments.launch import ServerOptions
from tests.ports import free_port


def test_what_replicas_reserve() -> None:
    scaling = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 4}
    models = [
        {"id": "lacuna-tiny-sdar", "num_gpus": 1, "num_replicas": 3},
        {"id": "lacuna-tiny-llada", "num_cpus": 2, "autoscaling": scaling},
    ]
    sdar, llada = replicas_at_start(AppConfig.parse({"models": models}))
    assert (sdar.bundle, sdar.count) == ({"CPU": 0.5, "GPU": 1}, 3)
    assert (llada.bundle, llada.count) == ({"CPU": 2}, 1), "the one that a request wakes needs room"


def test_models_share_the_nodes() -> None:
    nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0}]
    wanted = [Replicas("small", {"CPU": 2.0}, 4), Replicas("large", {"CPU": 3.0, "GPU": 1.0}, 1)]
    assert placed(wanted, nodes) == {"small": 2, "large": 1}
    assert placed([Replicas("wide", {"CPU": 6.0}, 1)], nodes) == {"wide": 0}, "a replica does not span nodes"
    assert placed([Replicas("free", {}, 9)], nodes) == {"free": 9}


@pytest.mark.parametrize(
    ("free", "total", "may_grow", "status"),
    [
        (4.0, 4.0, False, Status.OK),
        (1.0, 4.0, False, Status.WARNING),
        (1.0, 1.0, True, Status.WARNING),
        (1.0, 1.0, False, Status.FAILURE),
    ],
)
def test_room(free: float, total: float, may_grow: bool, status: Status) -> None:
    wanted = [Replicas("m", {"CPU": 2.0}, 2)]
    (found,) = check_room(wanted, [{"CPU": free}], [{"CPU": total}], may_grow=may_grow)
    assert found.status is status
    assert "2 x (2 CPU)" in found.message


def test_what_is_found_on_nodes() -> None:
    probes = {
        "good": Probe((), 0.2),
        "bare": "ModuleNotFoundError: No module named 'deployments'",
        "empty": Probe(("/models/a",), 0.0),
        "late": Probe((), -7.5),
    }
    good, bare, empty, late = check_probes(probes)
    assert [one.status for one in (good, bare, empty, late)] == [
        Status.OK,
        Status.FAILURE,
        Status.FAILURE,
        Status.WARNING,
    ]
    assert "/models/a" in empty.message
    assert "-7.5 s" in late.message


@pytest.mark.parametrize("template", ["127.0.0.1:{port}", "ray", "host:99999999"])
def test_a_cluster_that_is_not_there_is_not_waited_for(template: str) -> None:
    address = template.format(port=free_port())
    (found,) = check_cluster(Subject(options=ServerOptions(ray_address=address)))
    assert found.status is Status.FAILURE
    assert address in found.message


def test_no_cluster_no_findings() -> None:
    assert list(check_cluster(Subject())) == []
