"""The search by pieces and the sum by turns against torch's own operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.decoding import extremes
from engine.decoding.extremes import MIN_COLUMNS, PIECE, top, top_and_total, use_up

WIDTHS = (7, MIN_COLUMNS, MIN_COLUMNS + 1, MIN_COLUMNS + PIECE - 1)


def normal(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(width))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_largest_is_found_wherever_it_is(width: int) -> None:
    values = normal(width, width)
    values[torch.arange(width), torch.arange(width)] = 100.0
    value, column = top(values)
    assert value.eq(100.0).all()
    torch.testing.assert_close(column, torch.arange(width))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tied", [(0, 1), (3, 6), (-2, -1), (0, -1), (-PIECE - 1, -PIECE), (PIECE - 1, PIECE)])
def test_of_equal_values_the_first_column_counts(width: int, tied: tuple[int, int]) -> None:
    if max(map(abs, tied)) > width:
        tied = (0, 1)
    values = normal(2, width)
    values[:, list(tied)] = 50.0
    first = [min(place % width for place in tied)] * 2
    assert top(values)[1].tolist() == first
    assert use_up(values.t().contiguous())[1].tolist() == first


@pytest.mark.parametrize("width", [*WIDTHS, 64 * PIECE])
@pytest.mark.parametrize("positions", [1, 2, 7, 8, 9, 31, 32, 33, 37, 100])
def test_upright_logits_of_any_number_of_positions(width: int, positions: int) -> None:
    logits = 5 * normal(positions, width)
    logits[:, [1, 5]] = 30.0
    logits[-1, 3:] = -torch.inf
    value, row, log_total = use_up(logits.t().clone(memory_format=torch.contiguous_format))
    assert row.tolist() == [1] * positions
    assert value.eq(30.0).all()
    torch.testing.assert_close(log_total, logits.logsumexp(dim=1))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("without", [None, 0, 5, -1])
def test_turns_give_what_all_rows_at_once_give(
    width: int, without: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = 5 * normal(5, width)
    logits[1, : width // 2] = -torch.inf
    if without is not None:
        logits[2, without] = 40.0
    before, column = logits.clone(), None if without is None else without % width
    whole = top_and_total(logits, column)
    monkeypatch.setattr(extremes, "CACHED_BYTES", 2 * width * logits.itemsize)
    for part, expected in zip(top_and_total(logits, column), whole, strict=True):
        assert torch.equal(part, expected)
    assert torch.equal(logits, before)
    rest = logits.clone()
    if column is not None:
        rest[:, column] = -torch.inf
    expected_value, expected_column = rest.max(dim=1)
    assert torch.equal(whole[0], expected_value)
    assert torch.equal(whole[1], expected_column)
    torch.testing.assert_close(whole[2], logits.logsumexp(dim=1))
    value, row, log_total = use_up(logits.t().clone(memory_format=torch.contiguous_format), column)
    assert torch.equal(value, expected_value)
    assert torch.equal(row, expected_column)
    torch.testing.assert_close(log_total, whole[2])


def test_rows_without_any_token_have_no_share() -> None:
    logits = torch.full((2, MIN_COLUMNS), -torch.inf)
    value, column, log_total = top_and_total(logits, 3)
    assert value.tolist() == log_total.tolist() == [-torch.inf, -torch.inf]
    assert column.tolist() == [0, 0]
    for part, expected in zip(use_up(logits.t().contiguous(), 3), (value, column, log_total), strict=True):
        assert torch.equal(part, expected)
