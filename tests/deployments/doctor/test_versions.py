"""deployments/doctor/versions.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import protos.generation_pb2_grpc
from deployments.doctor.finding import Finding, Status, Subject
from deployments.doctor.versions import check_generated_code, check_packages, check_pins, check_python

SUBJECT = Subject(config=None)


def only(findings: object) -> Finding:
    (found,) = findings  # type: ignore[misc]
    assert isinstance(found, Finding)
    return found


def test_this_environment_is_as_required() -> None:
    for check in (check_python, check_packages, check_generated_code):
        assert only(check(SUBJECT)).status is Status.OK


@pytest.mark.parametrize(("version", "status"), [("3.10.4", Status.FAILURE), ("3.12.0", Status.OK)])
def test_another_python(version: str, status: Status) -> None:
    assert only(check_python(SUBJECT, version, ">=3.11")).status is status


def test_a_missing_and_an_old_package() -> None:
    missing, old = check_packages(SUBJECT, ["no-such-package>=2", "pydantic>=99", "rich>=1", "psycopg; extra == 'x'"])
    assert (missing.check, missing.message) == ("no-such-package", "not installed, wanted: >=2")
    assert old.status is Status.FAILURE
    assert old.message.endswith("wanted: >=99")
    assert "make install" in old.remedy


def test_other_versions_than_the_tested_ones(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# tested\npydantic==1.0\nzzz-not-ours==3\n")
    found = only(check_pins(SUBJECT, constraints))
    assert found.status is Status.WARNING
    assert "pydantic" in found.message
    assert "(tested: 1.0)" in found.message
    assert "zzz" not in found.message


def test_an_installation_without_its_source_knows_no_tested_versions(tmp_path: Path) -> None:
    assert list(check_pins(SUBJECT, tmp_path / "constraints.txt")) == []


def test_generated_code_that_is_newer_than_grpcio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(protos.generation_pb2_grpc.__file__).read_text()
    version = protos.generation_pb2_grpc.GRPC_GENERATED_VERSION
    (tmp_path / "from_the_future_pb2_grpc.py").write_text(source.replace(f"'{version}'", "'99.0.0'"))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = only(check_generated_code(SUBJECT, ["from_the_future_pb2_grpc"]))
    assert found.status is Status.FAILURE
    assert "99.0.0" in found.message
