"""`lacuna train --workers 2 --ray`: Ray Train starts the processes, DeepSpeed trains in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_two_workers_of_ray_train_one_checkpoint(tmp_path: Path) -> None:
    output = tmp_path / "model"
    options = "--steps 2 --no-compile --optimizer adamw --zero 1 --workers 2 --ray --tensorboard none --report-every 0"
    command = [sys.executable, "-m", "deployments.cli", "train", "tiny-ar", "--output", str(output), *options.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(output)
    record = json.loads((output / "training.json").read_text())
    assert record["steps"] == 2
    assert (output / "model.safetensors").is_file()
    lines = [json.loads(line) for line in (tmp_path / "model.metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["scores"] is None] == [1, 2]
    assert not (tmp_path / "model.ray").exists()
