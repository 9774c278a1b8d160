"""``--ray``: Ray Train starts the processes of a training, and DeepSpeed trains in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.engine.training.tiny_job import losses
from tests.helpers.tiny_adaptation import COMMAND, ROOT, ROUNDING, TinyAdaptation

STEPS = 3


def test_two_workers_of_ray_have_the_losses_of_one_process(tmp_path: Path) -> None:
    tiny = TinyAdaptation(tmp_path, STEPS)
    output = tmp_path / "two"
    command = [*COMMAND, *tiny.arguments(output, "--workers", "2", "--ray")]
    done = subprocess.run(
        command, cwd=ROOT, env=tiny.environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert losses(output) == pytest.approx(tiny.losses_of_one(), rel=ROUNDING)
    assert (output / "model.safetensors").is_file()
    assert done.stdout.splitlines()[-1] == str(output)
    assert "step 1  loss" in done.stdout + done.stderr, "progress reaches the terminal"
    assert not (tmp_path / "two.ray").exists()
