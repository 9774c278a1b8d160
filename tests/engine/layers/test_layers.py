"""Layers against their formulas."""

from __future__ import annotations

import pytest
import torch

from engine.layers import embedding, linear
from engine.layers.embedding import Embedding
from engine.layers.linear import LEAST_TURNED, MOST_TURNED, Linear, PackedLinear, product
from engine.layers.norm import RMSNorm
from engine.layers.rotary import RotaryEmbedding, rotate


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rms_norm_divides_by_the_root_mean_square_and_keeps_the_dtype() -> None:
    norm = RMSNorm(8, eps=1e-6)
    norm.weight.data = torch.arange(1.0, 9.0)
    x = normal(3, 8)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * torch.arange(1.0, 9.0)
    torch.testing.assert_close(norm(x), expected)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_rotation_depends_on_the_distance_of_positions_only() -> None:
    rotary = RotaryEmbedding(16, theta=10000.0)
    query, key = normal(1, 2, 16, seed=1), normal(1, 2, 16, seed=2)

    def score(query_position: int, key_position: int) -> torch.Tensor:
        rotated_query = rotate(query, *rotary(torch.tensor([query_position])))
        return (rotated_query * rotate(key, *rotary(torch.tensor([key_position])))).sum(-1)

    torch.testing.assert_close(score(3, 7), score(103, 107), atol=1e-4, rtol=0)
    assert not torch.allclose(score(3, 7), score(3, 8))


def test_position_zero_is_not_rotated() -> None:
    x = normal(1, 2, 16)
    torch.testing.assert_close(rotate(x, *RotaryEmbedding(16, 10000.0)(torch.tensor([0]))), x)


def test_dimensions_beyond_the_angles_pass_through() -> None:
    x, angles = normal(3, 2, 16), RotaryEmbedding(8, 10000.0)(torch.tensor([1, 5, 9]))
    rotated = rotate(x, *angles)
    torch.testing.assert_close(rotated[..., :8], rotate(x[..., :8], *angles))
    torch.testing.assert_close(rotated[..., 8:], x[..., 8:], rtol=0, atol=0)


def test_packed_parts_equal_separate_products() -> None:
    packed = PackedLinear(6, (4, 2, 3), bias=True)
    assert packed.bias is not None
    packed.weight.data, packed.bias.data = normal(9, 6), normal(9)
    x = normal(5, 6, seed=3)
    for part, (start, end) in zip(packed(x), packed.rows, strict=True):
        torch.testing.assert_close(part, x @ packed.weight[start:end].T + packed.bias[start:end])


def test_many_logits_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    head, x = Embedding(70, 6), normal(3, 6)
    head.weight.data = normal(70, 6, seed=1)
    head.requires_grad_(requires_grad=False)
    ((start, logits),) = head.upright_parts(x)
    assert start == 0
    torch.testing.assert_close(logits.t(), head.logits(x))
    monkeypatch.setattr(embedding, "PART_BYTES", 700)
    monkeypatch.setattr(embedding, "MIN_PART", 16)
    parts = list(head.upright_parts(x))
    assert [start for start, _ in parts] == [0, 48]
    torch.testing.assert_close(torch.cat([part for _, part in parts]), logits)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [128, 130])
def test_few_rows_by_a_large_weight_have_the_same_product(
    rows: int, dtype: torch.dtype, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "LARGE", 128 * 6)
    weight, bias, x = (normal(*shape, seed=len(shape)).to(dtype) for shape in ((size, 6), (size,), (rows, 6)))
    expected = torch.nn.functional.linear(x, weight, bias)
    near = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    head = Embedding(size, 6)
    head.weight.data = weight
    head.requires_grad_(requires_grad=False)
    with torch.inference_mode():
        torch.testing.assert_close(product(x, weight, bias), expected, **near)
        ((_, logits),) = head.upright_parts(x)
    torch.testing.assert_close(logits.t(), head.logits(x).float(), **near)


@pytest.mark.parametrize("rows", [2, LEAST_TURNED, MOST_TURNED, MOST_TURNED + 1])
@pytest.mark.parametrize("biased", [False, True])
def test_few_rows_have_the_same_product(rows: int, *, biased: bool) -> None:
    layer, x = Linear(6, 10, bias=biased), normal(rows, 6)
    layer.weight.data, bias = normal(10, 6, seed=1), normal(10, seed=2) if biased else None
    if biased:
        layer.bias.data = bias
    expected = torch.nn.functional.linear(x, layer.weight, bias)
    torch.testing.assert_close(product(x, layer.weight, bias), expected)
    with torch.inference_mode():
        by_columns = product(x, layer.weight, bias)
        torch.testing.assert_close(by_columns, expected)
        assert (by_columns.stride(0) == 1) is (LEAST_TURNED <= rows <= MOST_TURNED)
        assert layer(x).is_contiguous()
