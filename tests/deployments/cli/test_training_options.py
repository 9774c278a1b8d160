"""The options that every training command has."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.cli.training_options import TrainingOptions, run_training
from engine.errors import ConfigError


def test_a_mistake_is_found_before_a_model_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--minutes"):
        run_training(TrainingOptions(output=tmp_path, minutes=-1.0), lambda: pytest.fail("made the job"))
