"""deployments/doctor/examination.py and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from deployments.cli import app
from deployments.doctor.examination import CHECKS, examine, fails, render, summary
from deployments.doctor.finding import Finding, Status, Subject, failure, ok, warning
from tests.ports import free_port

FOUND = [ok("a", "fine"), warning("b", "[odd] :smile: odd", "do that"), failure("c", "bad", "do this")]


def doctor(*arguments: str) -> tuple[int, str]:
    ports = ["--port", str(free_port()), "--grpc-port", str(free_port())]
    result = CliRunner().invoke(app, ["doctor", *ports, *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout


def test_every_check_is_listed_once() -> None:
    assert len(set(CHECKS)) == len(CHECKS)
    assert all(check.__name__.startswith("check_") for check in CHECKS)


def test_a_check_that_cannot_look_does_not_hide_the_others() -> None:
    def check_broken(subject: Subject) -> Iterator[Finding]:
        yield ok("before", "")
        raise PermissionError("not for you")

    def check_whole(subject: Subject) -> Iterator[Finding]:
        yield ok("whole", "")

    found = examine(Subject(), [check_broken, check_whole])
    assert [(one.check, one.status) for one in found] == [
        ("before", Status.OK),
        ("broken", Status.FAILURE),
        ("whole", Status.OK),
    ]
    assert "not for you" in found[1].message


def test_the_table_is_ascii_and_shows_texts_as_they_are() -> None:
    text = render(FOUND, 80, colour=False)
    assert text.isascii()
    assert "[odd] :smile: odd" in text
    assert "-> do this" in text
    assert "\x1b[" not in text
    assert "\x1b[" in render(FOUND, 80, colour=True)


def test_only_failures_fail() -> None:
    assert fails(FOUND)
    assert not fails(FOUND[:2])
    assert summary(FOUND).startswith("1 failures, 1 warnings, 1 ok")


def test_the_embedded_models_can_be_served_here() -> None:
    status, output = doctor("--json")
    report = json.loads(output)
    assert status == 0, output
    assert report["ok"]
    found = {one["check"]: one["status"] for one in report["findings"]}
    assert found["model lacuna-tiny-sdar"] == found["model lacuna-tiny-llada"] == found["memory"] == "ok"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "gone=/no/such/folder"), "does not exist"),
        (("--set", "max_queue_depth=none"), "max_queue_depth"),
        (("--model", "lacuna-tiny-sdar", "--tp", "3"), "tensor_parallel_size 3"),
    ],
)
def test_what_cannot_be_served_is_exit_status_1(arguments: tuple[str, ...], words: str) -> None:
    status, output = doctor(*arguments)
    assert status == 1
    assert words in " ".join(output.replace("|", " ").split())
    assert "cannot be served as it is" in output
