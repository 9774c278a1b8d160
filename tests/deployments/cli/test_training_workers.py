"""Several processes that ``--workers`` or torchrun starts, and what is said when one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployments.cli.training_options import TrainingOptions
from deployments.cli.training_workers import how_to_go_on
from engine.errors import ConfigError
from engine.training.metrics import RunFiles
from tests.engine.training.tiny_job import losses
from tests.helpers.processes import PROC, descendants
from tests.helpers.tiny_adaptation import COMMAND, NUM_BAD_ROWS, ROOT, ROUNDING, TinyAdaptation

STEPS = 12
END_S = 20


def test_how_to_go_on_follows_from_what_was_saved(tmp_path: Path) -> None:
    output = tmp_path / "model"
    assert how_to_go_on(output).startswith("nothing was saved yet")
    state = RunFiles(output).state
    state.mkdir()
    (state / "state.json").write_text('{"step": 12}')
    assert "--resume goes on from step 12" in how_to_go_on(output)


@pytest.mark.parametrize(
    ("asked", "reason"), [({"workers": 3}, "--workers is 3, but a launcher has started 2"), ({"ray": True}, "--ray")]
)
def test_a_launcher_and_an_option_that_disagree_are_refused(
    asked: dict[str, object], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    TrainingOptions(output=tmp_path, workers=2).check()
    with pytest.raises(ConfigError, match=reason):
        TrainingOptions(output=tmp_path, **asked).check()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyAdaptation:
    return TinyAdaptation(tmp_path_factory.mktemp("tiny"), STEPS)


@pytest.fixture(scope="module")
def expected(tiny: TinyAdaptation) -> list[float]:
    return tiny.losses_of_one()


@pytest.mark.slow
def test_torchrun_has_the_losses_of_one_process(tiny: TinyAdaptation, expected: list[float], tmp_path: Path) -> None:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    output = tmp_path / "two"
    finish(start(tiny, (*launcher, "-m", "deployments.cli"), output), 0)
    assert losses(output) == pytest.approx(expected, rel=ROUNDING)
    assert json.loads(RunFiles(output).metrics.read_text().splitlines()[-1])["bad_rows"] == NUM_BAD_ROWS


@pytest.mark.slow
def test_a_killed_worker_is_named_and_its_training_resumes_to_the_same_losses(
    tiny: TinyAdaptation, expected: list[float], tmp_path: Path
) -> None:
    output = tmp_path / "two"
    process = start(tiny, COMMAND, output, "--workers", "2", "--save-every", "0")
    wait_for_step(process, RunFiles(output).metrics, 3)
    os.kill(worker(process, rank=1), signal.SIGKILL)
    killed = time.monotonic()
    told = finish(process, 128 + signal.SIGKILL)
    assert time.monotonic() - killed < END_S
    assert "lacuna: worker 1 was ended by SIGKILL" in told
    assert "--resume goes on from step" in told
    finish(start(tiny, COMMAND, output, "--workers", "2", "--resume"), 0)
    assert losses(output) == pytest.approx(expected, rel=ROUNDING)


def start(tiny: TinyAdaptation, command: tuple[str, ...], output: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *tiny.arguments(output, *more)],
        cwd=ROOT,
        env=tiny.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int) -> str:
    """What it printed."""
    printed, _ = process.communicate()
    assert process.returncode == status, printed
    return printed


def wait_for_step(process: subprocess.Popen[str], metrics: Path, step: int) -> None:
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= step):
        assert process.poll() is None, finish(process, 0)
        time.sleep(0.01)


def worker(process: subprocess.Popen[str], rank: int) -> int:
    """Its process id."""
    wanted = f"RANK={rank}".encode()
    return next(
        pid for pid in descendants(process.pid) if wanted in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    )
