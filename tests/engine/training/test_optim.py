"""Muon."""

from __future__ import annotations

import pytest
import torch

from engine.training.optim import MatrixPart, Muon, orthogonalise


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 48, 16), (2, 16, 48)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.4


def test_packed_projections_are_updated_as_if_they_were_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    packed = torch.zeros(24, 16)
    packed.grad = torch.randn(24, 16, generator=generator)
    first, second = torch.zeros(16, 16), torch.zeros(8, 16)
    first.grad, second.grad = packed.grad[:16].clone(), packed.grad[16:].clone()
    Muon([MatrixPart(packed, 0, 16), MatrixPart(packed, 16, 24)]).step(0.1)
    Muon([MatrixPart(first, 0, 16), MatrixPart(second, 0, 8)]).step(0.1)
    torch.testing.assert_close(packed, torch.cat([first, second]))
