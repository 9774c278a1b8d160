"""``lacuna adapt`` in a second of training: a random Qwen3 checkpoint, and rows that each fill a packed row alone.

So the micro-batches of one process are the batches of two, and their losses must be equal.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from typer.testing import CliRunner

from deployments.cli import app
from tests.engine.training.qwen3 import save_qwen3
from tests.engine.training.tiny_job import losses

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "deployments.cli")
NUM_BAD_ROWS = 1
ROUNDING = 2e-5
"""Sums over processes are added in another order."""


class TinyAdaptation:
    """The material in a folder, what to type, and the losses of one process."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder = folder
        self._steps = steps
        save_qwen3(folder / "ar")
        rows: list[object] = [{"prompt": f"Name number {n}", "answer": f"It is {n} of 8"} for n in range(8)]
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, [*rows, ["no object"] * NUM_BAD_ROWS])))
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.environment.pop("RAY_ADDRESS", None)

    def arguments(self, output: Path, *more: str) -> list[str]:
        """Of the command ``lacuna``."""
        return [
            *("adapt", "--from", str(self._folder / "ar"), "--data", str(self._folder / "rows.jsonl")),
            *("--sequence-length", "64", "--learning-rate", "0.001", "--steps", str(self._steps)),
            *("--no-compile", "--report-every", "0", "--tensorboard", "none", "--output", str(output)),
            *more,
        ]

    def losses_of_one(self) -> list[float]:
        """Two micro-batches in place of two processes."""
        output = self._folder / "one"
        result = CliRunner().invoke(app, self.arguments(output, "--accumulate", "2"), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return losses(output)
