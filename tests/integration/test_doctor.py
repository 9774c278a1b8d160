"""`lacuna doctor --ray-address` on the running cluster."""

from __future__ import annotations

from pathlib import Path

import ray

from deployments.config import AppConfig
from deployments.doctor.cluster import check_cluster
from deployments.doctor.finding import Status, Subject
from deployments.launch import ServerOptions
from tests.integration.conftest import Service


def test_a_cluster_with_room_and_one_without(service: Service, tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    models = [
        {"id": "here", "path": str(tmp_path), "num_cpus": 0},
        {"id": "large", "path": str(tmp_path / "gone"), "num_cpus": 10_000},
    ]
    subject = Subject(config=AppConfig.parse({"models": models}), options=ServerOptions(ray_address=address))
    cluster, here, large, node = check_cluster(subject)
    assert [one.status for one in (cluster, here, large, node)] == [
        Status.OK,
        Status.OK,
        Status.FAILURE,
        Status.FAILURE,
    ]
    assert cluster.message.startswith("nodes: 1;")
    assert "missing: 10000 CPU" in large.message
    assert node.message == f"no checkpoint at {tmp_path / 'gone'}"
    assert ray.is_initialized(), "the doctor leaves a connection that it found"
    (fine,) = [one for one in check_cluster(Subject(options=subject.options)) if one.check.startswith("node")]
    assert fine.status is Status.OK
    assert service.is_idle()
