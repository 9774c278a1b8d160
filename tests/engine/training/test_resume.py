"""Interrupted trainings go on as if nothing had happened, and nothing is lost when the disk fills."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from engine.errors import ConfigError
from engine.training.job import Budget, Job, Optimisation
from engine.training.metrics import RunFiles, TrainProgress
from tests.engine.training.tiny_job import ADAMW, MUON, losses, run, tiny_job

pytestmark = pytest.mark.slow  # the first optimiser of a process imports torch's compiler: seconds


def stop_at(step: int, number: int = signal.SIGTERM) -> Callable[[TrainProgress], None]:
    def on_progress(progress: TrainProgress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), number)

    return on_progress


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("optimisation", [MUON, ADAMW], ids=["muon", "adamw"])
def test_a_stopped_run_goes_on_to_exactly_the_same_losses(optimisation: Optimisation, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(tiny_job(6, optimisation), whole).signal == 0
    stopped = run(tiny_job(6, optimisation), parts, stop_at(3))
    assert stopped.signal == signal.SIGTERM
    assert stopped.step in (3, 4), "the step that was begun is finished"
    assert RunFiles(parts).state.is_dir()
    result = run(tiny_job(6, optimisation), parts, resume=True)
    assert (result.step, result.signal) == (6, 0)
    assert losses(parts) == losses(whole)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert RunFiles(parts).bad_rows.read_text() == RunFiles(whole).bad_rows.read_text()
    assert not RunFiles(parts).state.exists(), "a finished training needs no state"


def test_bad_rows_are_counted_named_and_written(tmp_path: Path) -> None:
    result = run(tiny_job(3), tmp_path / "out")
    lines = RunFiles(tmp_path / "out").bad_rows.read_text().splitlines()
    assert result.last is not None
    assert len(lines) == result.last.bad_rows > 0
    assert json.loads(lines[0]) == {"place": "data.jsonl:7", "reason": "no answer"}


def test_a_micro_batch_is_a_part_of_a_batch(tmp_path: Path) -> None:
    """Three steps of two batches equal those of one batch of twice the size: the same samples, one loss over all."""
    small = tiny_job(3, ADAMW, row_lengths=(48,))
    run(small, tmp_path / "small", accumulate=2)
    run(replace(tiny_job(3, ADAMW, row_lengths=(48,)), tokens_per_step=384), tmp_path / "large")
    assert losses(tmp_path / "small") == pytest.approx(losses(tmp_path / "large"), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda job: replace(job, name="other"), 'name was "tiny" and is "other"'),
        (lambda job: replace(job, record={"data": "else"}), 'record.data was "counting" and is "else"'),
        (lambda job: replace(job, budget=Budget(9, None)), "budget.steps was 4 and is 9"),
        (lambda job: replace(job, optimisation=ADAMW), "optimisation.kind"),
    ],
)
def test_another_training_is_not_resumed(change: Callable[[Job], Job], named: str, tmp_path: Path) -> None:
    run(tiny_job(4), tmp_path / "out", stop_at(2))
    with pytest.raises(ConfigError, match="another training") as caught:
        run(change(tiny_job(4)), tmp_path / "out", resume=True)
    assert named in str(caught.value)
    with pytest.raises(ConfigError, match="seed was 0 and is 1"):
        run(tiny_job(4), tmp_path / "out", resume=True, seed=1)


def test_an_output_is_overwritten_only_when_asked(tmp_path: Path) -> None:
    run(tiny_job(2), tmp_path / "out")
    with pytest.raises(ConfigError, match="--overwrite"):
        run(tiny_job(2), tmp_path / "out")
    with pytest.raises(ConfigError, match="nothing to resume"):
        run(tiny_job(2), tmp_path / "out", resume=True)
    run(tiny_job(3), tmp_path / "out", overwrite=True)
    assert len(losses(tmp_path / "out")) == 3


SCRIPT = Path(__file__).with_name("tiny_job.py")


def start(output: Path, steps: int, options: dict[str, object], **kwargs: object) -> subprocess.Popen[str]:
    arguments = json.dumps({"output": str(output), "steps": steps, **options})
    root = SCRIPT.parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, str(SCRIPT), arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def test_a_killed_run_goes_on_from_its_last_state(tmp_path: Path) -> None:
    """It saves after every step; the metrics it wrote after the last state are written again."""
    run(tiny_job(40), tmp_path / "whole")
    process = start(tmp_path / "killed", 40, {"validate_every_s": 0.0})
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 5:
            process.kill()
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    place = json.loads((RunFiles(tmp_path / "killed").state / "state.json").read_text())
    assert 0 < place["step"] < 40
    run(tiny_job(40), tmp_path / "killed", resume=True)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_a_full_disk_leaves_checkpoint_and_state_as_they_were(tmp_path: Path) -> None:
    """The disk is a limit on the size of files here."""
    output = tmp_path / "out"
    run(tiny_job(6), output, stop_at(2))
    state = RunFiles(output).state
    before, state_before = files(output), files(state)
    largest = max(len(content) for content in state_before.values())
    process = start(
        output,
        6,
        {"resume": True, "validate_every_s": 0.0},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2)),
    )
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert "There is no room for" in stderr
    assert str(state) in stderr
    assert files(state) == state_before
    assert files(output).keys() == before.keys()
    assert load_file(output / "model.safetensors")
    assert not list(tmp_path.glob(".*")), "what was begun is removed"
    run(tiny_job(6), output, resume=True)
    run(tiny_job(6), tmp_path / "whole")
    assert losses(output) == losses(tmp_path / "whole")
