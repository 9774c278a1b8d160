"""deployments/doctor/system.py and ports.py: real limits, real sockets."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.api_keys import ApiKey, digest
from deployments.config import AppConfig
from deployments.doctor.finding import Status, Subject
from deployments.doctor.ports import check_access, check_ports, listener
from deployments.doctor.system import check_clock, check_disk, check_open_files, check_shared_memory
from deployments.launch import ServerOptions
from tests.ports import free_port


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def listening_at(**options: object) -> Subject:
    return Subject(options=ServerOptions(**{"http_port": free_port(), "grpc_port": free_port()} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "status"),
    [(256, Status.FAILURE), (4096, Status.WARNING), (65536, Status.OK), (resource.RLIM_INFINITY, Status.OK)],
)
def test_open_files(limit: int, status: Status) -> None:
    (found,) = check_open_files(Subject(), limit)
    assert found.status is status
    assert next(iter(check_open_files(Subject()))).message != ""


def test_shared_memory(tmp_path: Path) -> None:
    (found,) = check_shared_memory(Subject(), tmp_path)
    assert found.status is Status.OK
    (found,) = check_shared_memory(Subject(), tmp_path / "nowhere")
    assert found.status is Status.WARNING
    if os.path.ismount("/dev"):
        small = os.statvfs("/dev")
        (found,) = check_shared_memory(Subject(), Path("/dev"))
        assert (found.status is Status.OK) == (small.f_blocks * small.f_frsize >= 2**30)


def test_a_full_disk_stops_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [found.status for found in check_disk(Subject(), tmp_path)] == [Status.OK]
    monkeypatch.setattr("deployments.doctor.system.free_disk", lambda path: (2 * 2**30, 100 * 2**30))
    (found,) = check_disk(Subject(), tmp_path)
    assert found.status is Status.FAILURE
    assert "95 %" in found.remedy
    assert list(check_disk(Subject(options=ServerOptions(ray_address="auto")), tmp_path)) == []


def test_a_clock_that_was_reset() -> None:
    assert [found.status for found in check_clock(Subject())] == [Status.OK]
    (found,) = check_clock(Subject(), now=0.0)
    assert found.status is Status.FAILURE
    assert found.message.startswith("1970-01-01")


def test_free_ports() -> None:
    assert [found.status for found in check_ports(listening_at())] == [Status.OK, Status.OK]


def test_a_busy_port_and_who_holds_it(busy_port: int) -> None:
    http, grpc = check_ports(listening_at(http_port=busy_port))
    assert (http.status, grpc.status) == (Status.FAILURE, Status.OK)
    assert f"{busy_port} is in use by " in http.message
    assert f"(pid {os.getpid()})" in http.message
    assert "--port" in http.remedy
    _, grpc = check_ports(listening_at(grpc_port=busy_port))
    assert grpc.status is Status.FAILURE


def test_nobody_listens_and_no_proc(tmp_path: Path) -> None:
    assert listener(free_port()) == ""
    assert listener(80, tmp_path) == ""


def test_one_port_for_both() -> None:
    port = free_port()
    _, grpc = check_ports(listening_at(http_port=port, grpc_port=port))
    assert grpc.status is Status.FAILURE


def test_an_address_of_another_machine() -> None:
    http, _ = check_ports(listening_at(host="192.0.2.77"))
    assert http.status is Status.FAILURE
    assert http.remedy == "correct --host"


def test_an_open_server_is_said_to_be_open() -> None:
    keys = [ApiKey(name="a", sha256=digest("secret")).model_dump()]
    closed = Subject(config=AppConfig.parse({"api_keys": keys}), options=ServerOptions(host="0.0.0.0"))
    assert [found.status for found in check_access(closed)] == [Status.OK]
    assert [found.status for found in check_access(listening_at(host="0.0.0.0"))] == [Status.WARNING]
    assert [found.status for found in check_access(listening_at(host="::1"))] == [Status.OK]
    assert [found.status for found in check_access(listening_at(host="server.example"))] == [Status.WARNING]
