"""DeepSpeed on two processes (gloo): the same losses as one process, whatever ZeRO divides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from engine.errors import ConfigError
from engine.training.zero import ZeroSettings
from tests.engine.training.tiny_job import losses, run, tiny_job
from tests.engine.training.zero_process import job
from tests.ports import free_port

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("zero_process.py")
ROUNDING = 2e-5
"""Sums over processes are added in another order; measured differences are below 1e-6."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of both processes, and ``plain`` of one."""
    folder = tmp_path_factory.mktemp("zero")
    run(job(), folder / "plain", accumulate=2)
    root = SCRIPT.parents[3]
    shared = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    environment = {**os.environ, **shared, "MASTER_PORT": str(free_port())}
    command = [sys.executable, str(SCRIPT), str(folder)]
    processes = [
        subprocess.Popen(
            command,
            cwd=root,
            env={**environment, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    return folder


@pytest.mark.parametrize("name", ["zero0", "zero1", "zero2", "zero3", "stopped2", "stopped3"])
def test_two_processes_have_the_losses_and_weights_of_one_with_two_micro_batches(runs: Path, name: str) -> None:
    assert losses(runs / name) == pytest.approx(losses(runs / "plain"), rel=ROUNDING)
    expected, actual = (load_file(runs / run / "model.safetensors") for run in ("plain", name))
    assert expected.keys() == actual.keys()
    for tensor in expected:
        assert (expected[tensor].float() - actual[tensor].float()).abs().max() < 0.02, "up to a bfloat16 step or two"


def test_weights_in_bfloat16_learn_as_well(runs: Path) -> None:
    assert losses(runs / "bfloat16") == pytest.approx(losses(runs / "plain"), rel=0.02)


def test_muon_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--optimizer adamw"):
        run(tiny_job(1), tmp_path / "out", zero=ZeroSettings())
