"""The command on the recordings in tests/goldens, and on damaged copies of some of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.bench.__main__ import main
from engine.bench.goldens.command import EXIT_DIFFERENCES, EXIT_OK, EXIT_USAGE

GOLDENS = Path(__file__).parents[2] / "goldens"
Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command; returns its exit code and the object on its last line."""

    def call(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
        code = main(["goldens", *map(str, arguments)])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


@pytest.fixture
def fastdllm(tmp_path: Path) -> Path:
    """A folder with one small case and its checkpoint."""
    source, folder = GOLDENS / "fastdllm", tmp_path / "some name"
    (folder / "cases").mkdir(parents=True)
    shutil.copy(source / "cases" / "open_llada_d_thr_b2.json", folder / "cases" / "renamed.json")
    shutil.copytree(source / "checkpoints" / "llada_a", folder / "checkpoints" / "llada_a")
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    (file,) = (folder / "cases").glob("*.json")
    case = json.loads(file.read_text())
    change(case)
    file.write_text(json.dumps(case))


@pytest.mark.timeout(600)  # a minute of processor time at most, but the machine may be busy
@pytest.mark.slow
def test_every_recording_in_the_repository_is_reproduced(command: Command) -> None:
    code, summary = command(GOLDENS)
    cases = [case for name, kind in summary.items() if name != "ok" for case in kind["cases"] if case["required"]]
    assert [case for case in cases if case["status"] == "failed"] == []
    assert code == EXIT_OK
    assert summary["ok"] is True
    assert summary["fastdllm"]["passed"] == num_required(GOLDENS / "fastdllm" / "cases")
    assert summary["sdar"]["passed"] == num_runs(GOLDENS / "sdar" / "cases") + 12
    for kind in ("fastdllm", "sdar", "dinfer_decoders", "dinfer_e2e"):
        assert summary[kind]["not_supported"] == 0
    assert summary["dinfer_e2e"]["passed"] == 34
    for case in summary["dinfer_e2e"]["cases"]:
        if case["mode"] == "default":
            assert case["forwards"]["engine"] <= case["forwards"]["reference"], case["id"]
    assert summary["forwards"]["passed"] >= 6
    assert summary["sglang_algorithms"]["passed"] == len(list((GOLDENS / "sglang_algorithms").glob("*.npz")))
    assert summary["published_decoders"]["passed"] >= 8


def num_required(cases: Path) -> int:
    return sum(not json.loads(file.read_text())["optional"] for file in cases.glob("*.json"))


def num_runs(cases: Path) -> int:
    return sum(len(json.loads(file.read_text())["runs"]) for file in cases.glob("*.json"))


def test_a_case_passes_alone_in_both_modes(command: Command, fastdllm: Path) -> None:
    code, summary = command(fastdllm)
    assert code == EXIT_OK
    assert [(case["mode"], case["status"]) for case in summary["fastdllm"]["cases"]] == [
        ("parity", "passed"),
        ("default", "passed"),
    ]


def wrong_token(case: dict[str, Any]) -> None:
    case["expected"]["output_ids"][1][-1] += 1


def wrong_count(case: dict[str, Any]) -> None:
    case["expected"]["nfe"] += 1


def wrong_order(case: dict[str, Any]) -> None:
    case["expected"]["decode_forward"][0][0] += 1


@pytest.mark.parametrize(
    ("change", "modes", "reason"),
    [
        (wrong_token, ["parity", "default"], "row 1 tokens"),
        (wrong_count, ["parity"], "forwards"),
        (wrong_order, ["parity"], "row 0 forward"),
    ],
)
def test_a_difference_fails(
    command: Command, fastdllm: Path, change: Callable[[dict[str, Any]], None], modes: list[str], reason: str
) -> None:
    edit(fastdllm, change)
    code, summary = command(fastdllm)
    failed = [case for case in summary["fastdllm"]["cases"] if case["status"] == "failed"]
    assert code == EXIT_DIFFERENCES
    assert [case["mode"] for case in failed] == modes
    assert all(reason in case["reason"] for case in failed)


def test_more_forwards_than_the_reference_fail_by_default(command: Command, fastdllm: Path) -> None:
    edit(fastdllm, lambda case: case["expected"].update(nfe=1))
    code, summary = command(fastdllm, "--mode", "default")
    assert code == EXIT_DIFFERENCES
    assert "the reference needs 1" in summary["fastdllm"]["cases"][0]["reason"]


def test_optional_cases_alone_do_not_pass(command: Command, fastdllm: Path) -> None:
    edit(fastdllm, lambda case: case.update(optional=True))
    code, summary = command(fastdllm)
    assert code == EXIT_DIFFERENCES
    assert summary["fastdllm"]["optional"]["passed"] == 1


def test_unknown_function_is_not_supported_and_not_a_pass(command: Command, fastdllm: Path) -> None:
    edit(fastdllm, lambda case: case.update(function="other.generate"))
    code, summary = command(fastdllm)
    assert code == EXIT_DIFFERENCES
    assert summary["fastdllm"]["not_supported"] == 1
    assert summary["fastdllm"]["cases"][0]["reason"] == "function other.generate"


def test_unknown_architecture_is_not_supported(command: Command, fastdllm: Path) -> None:
    config = fastdllm / "checkpoints" / "llada_a" / "config.json"
    fields = json.loads(config.read_text())
    config.write_text(json.dumps(fields | {"architectures": ["NewModel"], "model_type": "new"}))
    _, summary = command(fastdllm)
    assert summary["fastdllm"]["not_supported"] == 1
    assert "NewModel" in summary["fastdllm"]["cases"][0]["reason"]


def test_missing_weights_fail(command: Command, fastdllm: Path) -> None:
    (fastdllm / "checkpoints" / "llada_a" / "model.safetensors").unlink()
    code, summary = command(fastdllm)
    assert code == EXIT_DIFFERENCES
    assert "cannot load llada_a" in summary["fastdllm"]["cases"][0]["reason"]


def test_damaged_case_fails(command: Command, fastdllm: Path) -> None:
    (fastdllm / "cases" / "damaged.json").write_text("{}")
    code, summary = command(fastdllm)
    assert code == EXIT_DIFFERENCES
    assert (summary["fastdllm"]["passed"], summary["fastdllm"]["failed"]) == (1, 1)


def test_a_path_with_nothing_replayed_spoils_the_verdict(command: Command, fastdllm: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(fastdllm, other)
    edit(other, lambda case: case.update(function="other.generate"))
    code, summary = command(fastdllm, other)
    assert (code, summary["fastdllm"]["ok"], summary["ok"]) == (EXIT_DIFFERENCES, True, False)


def test_filter_and_json_file(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    code, summary = command(GOLDENS, "--filter", "dinfer_decoders/fixed_00*", "--json", file)
    assert code == EXIT_OK
    assert {case["id"] for case in summary["dinfer_decoders"]["cases"]} == {f"fixed_00{n}" for n in (0, 4)}
    assert json.loads(file.read_text()) == summary


@pytest.mark.parametrize("arguments", [["nowhere"], [str(GOLDENS.parent / "engine" / "bench")]])
def test_paths_without_recordings_are_a_usage_error(command: Command, arguments: list[str]) -> None:
    code, summary = command(*arguments)
    assert code == EXIT_USAGE
    assert summary["ok"] is False
    assert arguments[0] in summary["error"]


def test_filter_that_matches_nothing_is_a_usage_error(command: Command) -> None:
    assert command(GOLDENS / "dinfer_decoders", "--filter", "nothing like it")[0] == EXIT_USAGE
