"""Plain forwards of a checkpoint, to be compared with recorded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.bench.forward import Forward, RecordingAttention, forward
from engine.config import EngineConfig
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import load_model
from engine.models.spec import DiffusionLM

__all__ = ["GOLDENS", "Forward", "RecordingAttention", "forward", "load_checkpoint"]

GOLDENS = Path(__file__).parents[1] / "goldens"


def load_checkpoint(folder: Path, **options: Any) -> DiffusionLM:
    """The network in float32; ``options`` are those of EngineConfig."""
    return load_model(folder, open_checkpoint(folder, EngineConfig(**options)).spec, torch.float32, "cpu")
