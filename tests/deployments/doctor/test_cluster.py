"""deployments/doctor/room.py and the parts of cluster.py that need no Ray; with Ray: tests/integration."""

from __future__ import annotations

import pytest

from deployments.config import AppConfig
from deployments.doctor.cluster import Probe, check_cluster, check_probes
from deployments.doctor.finding import Status, Subject
from deployments.doctor.machine import Machine
from deployments.doctor.room import check_local_room, check_room, reserved
from deployments.launch import ServerOptions
from tests.ports import free_port


def config(**settings: object) -> AppConfig:
    return AppConfig.parse({"models": [{"id": "lacuna-tiny-sdar", "num_cpus": 2, **settings}]})


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
    (found,) = check_room(config(num_replicas=2), [{"CPU": free}], [{"CPU": total}], may_grow=may_grow)
    assert found.status is status
    assert "2 CPU" in found.message
    assert bool(found.remedy) == (status is not Status.OK)


def test_a_model_without_replicas_needs_room_for_the_one_that_a_request_wakes() -> None:
    asleep = config(autoscaling={"min_replicas": 0, "initial_replicas": 0, "max_replicas": 4})
    (found,) = check_room(asleep, [{"CPU": 1.0}], [{"CPU": 1.0}], may_grow=False)
    assert found.status is Status.FAILURE


def test_ranks_are_said() -> None:
    sharded = config(engine={"tensor_parallel_size": 4}, num_gpus=1, num_cpus=1)
    assert reserved(sharded.models[0]) == "1 x (4 ranks of 1 CPU, 1 GPU)"
    assert reserved(config(num_replicas=3).models[0]) == "3 x (2 CPU)"
    (found,) = check_room(sharded, [{"CPU": 8.0, "GPU": 2.0}], [{"CPU": 8.0, "GPU": 2.0}], may_grow=False)
    assert "room for 2" in found.message


def test_room_on_this_machine() -> None:
    machine = Machine(cores=3, memory_bytes=2**34, available_bytes=2**33, fast_bfloat16=False)
    assert [one.status for one in check_local_room(Subject(config=config()), machine)] == [Status.OK]
    assert [one.status for one in check_local_room(Subject(config=config(num_replicas=2)), machine)] == [Status.FAILURE]
    assert list(check_local_room(Subject(config=config(), options=ServerOptions(ray_address="auto")), machine)) == []


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
