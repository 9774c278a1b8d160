"""Markers by folder, so that no test file has to name its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

FOLDER_MARKERS = ("integration", "e2e", "gpu")
TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="needs a CUDA device, none is visible")
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue
        top = item.path.relative_to(TESTS).parts[0]
        if top in FOLDER_MARKERS:
            item.add_marker(top)
        if top == "gpu" and not torch.cuda.is_available():
            item.add_marker(no_gpu)
