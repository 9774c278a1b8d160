"""Settings of the engine's tests: one thread, reproducible property tests without deadlines, golden checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "engine",
    deadline=None,
    derandomize=True,
    max_examples=40,
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("engine")

GOLDENS = Path(__file__).parent.parent / "goldens"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def llada_folder() -> Path:
    """Full-bidirectional: 300 ids, mask 290, end of text 291."""
    return GOLDENS / "fastdllm" / "checkpoints" / "llada_a"


@pytest.fixture(scope="session")
def sdar_folder() -> Path:
    """Block-causal: 300 ids, mask 290, stop ids 283 and 285, blocks of 4."""
    return GOLDENS / "sdar" / "models" / "dense_hd16"


@pytest.fixture(scope="session")
def sampling_recording() -> Path:
    """SDAR's distributions after temperature, top-k and top-p (JSON; the tensors lie beside it)."""
    return GOLDENS / "sdar" / "sampling.json"
