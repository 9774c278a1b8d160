"""Ray Train starts the processes of a training, and DeepSpeed trains in them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="Ray Train is an extra: pip install 'ray[train]'")

SCRIPT = """
import sys
from functools import partial
from pathlib import Path
import ray
from cluster.training import run_on_ray
from tests.engine.training.tiny_job import train_on_two

folder = Path(sys.argv[1])
ray.init(num_cpus=3, include_dashboard=False)
run_on_ray(partial(train_on_two, folder / "out"), num_workers=2, cpus=1, uses_gpu=False, storage=folder / "ray")
"""


def test_two_workers_of_ray_train_one_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "training.json").read_text())["steps"] == 2
    assert (tmp_path / "out" / "model.safetensors").is_file()
    lines = (tmp_path / "out.metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert not (tmp_path / "ray").exists()
