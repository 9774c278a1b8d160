"""Products with int8 weights against exact ones."""

from __future__ import annotations

import pytest
import torch

from engine.layers.embedding import Embedding
from engine.layers.int8 import LARGEST, Int8Matrix, rounded
from engine.layers.linear import Linear, PackedLinear


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rounding_loses_at_most_half_a_step_of_the_row() -> None:
    rows = normal(4, 32) * torch.tensor([[1.0], [100.0], [1e-3], [0.0]])
    whole, scale = rounded(rows)
    assert int(whole.abs().max()) == LARGEST
    assert ((whole * scale - rows).abs() <= scale * 0.5001).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_that_of_the_rounded_rows_and_no_position_depends_on_another(dtype: torch.dtype) -> None:
    matrix, x = Int8Matrix(normal(24, 40)), normal(5, 40, seed=1).to(dtype)
    whole, scale = rounded(x)
    exact = (whole.double() * scale) @ (matrix.weight.double() * matrix.scale[:, None]).T
    product = matrix(x)
    assert product.dtype == dtype
    torch.testing.assert_close(product.double(), exact, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5)
    assert torch.equal(matrix(torch.cat((x[2:3], 1000 * x)))[0], product[2])
    close = (normal(24, 40) @ x.float().T).T
    assert (product.float() - close).norm() < 0.02 * close.norm()


def test_a_quantised_projection_keeps_its_bias_and_drops_its_exact_weight() -> None:
    x = normal(3, 16)
    linear, packed = Linear(16, 8, bias=True), PackedLinear(16, (4, 6), bias=True)
    modules: tuple[Linear | PackedLinear, ...] = (linear, packed)
    for module in modules:
        assert module.bias is not None
        module.weight.data, module.bias.data = normal(*module.weight.shape), normal(len(module.bias), seed=2)
        module.requires_grad_(requires_grad=False)
    exact = (linear(x), torch.cat(packed(x), dim=1))
    for module in modules:
        module.quantize()
    for before, after in zip(exact, (linear(x), torch.cat(packed(x), dim=1)), strict=True):
        assert (after - before).norm() < 0.02 * before.norm()
    assert linear.weight.numel() == packed.weight.numel() == 0


@pytest.mark.parametrize("keep", [True, False])
def test_a_head_makes_logits_and_a_tied_table_is_still_looked_up(keep: bool) -> None:
    table, x = Embedding(50, 16), normal(3, 16)
    table.weight.data = normal(50, 16)
    table.requires_grad_(requires_grad=False)
    logits, row = table.logits(x), table(torch.tensor([7]))
    table.quantize(keep=keep)
    assert (table.logits(x) - logits).norm() < 0.02 * logits.norm()
    assert len(table.weight) == (50 if keep else 0)
    if keep:
        assert torch.equal(table(torch.tensor([7])), row)
