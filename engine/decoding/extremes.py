"""The largest of many columns, and the logarithm of the sum of their exponentials, in few passes over memory.

On a CPU, ``max`` with indices looks at one number at a time and ``logsumexp`` writes a copy of its input. So the
largest is looked for without indices, its place among a few neighbours, and the sum is taken of as many rows as fit the
cache of a core.

The same of logits that stand upright, a row for each token id, as a product of the output head with few positions
leaves them: then numbers side by side belong to different positions, and no operation goes along them. Several rows
are taken as one where a row alone is too short to be computed on as a vector.

Shape legend: M positions, V columns (rows, where logits stand upright), P pieces of these, W of a piece, L rows that
are taken as one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CACHED_BYTES = 2**20
"""What is worked on at a time: about half of a core's second-level cache."""

PIECE = 64
"""Columns among which the place of the largest is looked for one by one."""

MIN_COLUMNS = 16 * PIECE
"""Rows that are shorter are looked at one by one."""

VECTOR = 32
"""Numbers side by side that a CPU's reduction over rows takes at once. What is left over it takes one by one."""

MOST_AS_ONE = 32
"""Most rows that are taken as one: a divisor of ``PIECE``."""


def top(values_MV: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row and its first column."""
    if values_MV.device.type != "cpu" or values_MV.shape[1] < MIN_COLUMNS:
        value_M, column_M = values_MV.max(dim=1)
        return value_M, column_M
    return _top_by_pieces(values_MV)


def top_and_total(logits_MV: Tensor, without: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The largest of each row but the column ``without``, its first column, and the logarithm of the sum of the
    exponentials of all columns. ``logits_MV`` is left as it was."""
    parts = [_top_and_total(part_MV, without) for part_MV in _turns(logits_MV)]
    if len(parts) == 1:
        return parts[0]
    value_M, column_M, log_total_M = (torch.cat(numbers) for numbers in zip(*parts, strict=True))
    return value_M, column_M, log_total_M


def use_up(logits_VM: Tensor, without: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`top_and_total` of upright logits but the row ``without``. ``logits_VM`` is something else afterwards."""
    if logits_VM.stride(0) == 1:  # a position's numbers lie side by side after all
        return top_and_total(logits_VM.t(), without)
    kept_M = None if without is None else logits_VM[without].clone()
    if kept_M is not None:
        logits_VM[without] = -torch.inf
    value_M, row_M = _top_upright(logits_VM)
    shift_M = value_M
    if kept_M is not None:
        logits_VM[without] = kept_M
        shift_M = torch.maximum(value_M, kept_M)
    shift_M = _finite(shift_M)
    height, width = logits_VM.shape
    together = _rows_as_one(logits_VM) if height % MOST_AS_ONE == 0 else 1
    shifted_XL = logits_VM.view(-1, together * width).sub_(shift_M.repeat(together))
    total_M = shifted_XL.exp_().sum(dim=0).view(together, width).sum(dim=0)
    return value_M, row_M, total_M.log_().add_(shift_M)


def _turns(logits_MV: Tensor) -> Iterator[Tensor]:
    """Rows that are looked at together."""
    if logits_MV.device.type != "cpu" or logits_MV.nbytes <= CACHED_BYTES:
        yield logits_MV
    else:
        yield from logits_MV.split(max(CACHED_BYTES // (logits_MV.shape[1] * logits_MV.itemsize), 1))


def _top_and_total(logits_MV: Tensor, without: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The column is taken away and put back: a copy of all others costs more than the search."""
    if without is None:
        value_M, column_M = top(logits_MV)
        return value_M, column_M, _log_total(logits_MV, value_M)
    kept_M = logits_MV[:, without].clone()
    logits_MV[:, without] = -torch.inf
    value_M, column_M = top(logits_MV)
    logits_MV[:, without] = kept_M
    return value_M, column_M, _log_total(logits_MV, torch.maximum(value_M, kept_M))


def _log_total(logits_MV: Tensor, largest_M: Tensor) -> Tensor:
    """``logsumexp`` of rows whose largest logit is known."""
    shift_M = _finite(largest_M)
    return (logits_MV - shift_M[:, None]).exp_().sum(dim=1).log_().add_(shift_M)


def _finite(largest_M: Tensor) -> Tensor:
    """What exponents are taken less than: where all logits are -inf, their sum is to be 0."""
    return largest_M.clamp(min=torch.finfo(largest_M.dtype).min)


def _top_by_pieces(values_MV: Tensor) -> tuple[Tensor, Tensor]:
    """A piece at the end that is not whole begins with columns of the piece before, which has them first."""
    width = values_MV.shape[1]
    last = width - PIECE
    top_MP = values_MV[:, : width - width % PIECE].unflatten(1, (-1, PIECE)).amax(dim=2)
    if width % PIECE:
        top_MP = torch.cat((top_MP, values_MV[:, last:].amax(dim=1, keepdim=True)), dim=1)
    first_M = (top_MP.argmax(dim=1) * PIECE).clamp(max=last)
    piece_MW = values_MV.gather(1, first_M[:, None] + torch.arange(PIECE))
    value_M, offset_M = piece_MW.max(dim=1)
    return value_M, first_M + offset_M


def _top_upright(values_VM: Tensor) -> tuple[Tensor, Tensor]:
    """The same of upright values; through a transposed view :func:`_top_by_pieces` takes 1.5 to 2 times as long."""
    height = len(values_VM)
    if height < MIN_COLUMNS:
        value_M, row_M = values_VM.max(dim=0)
        return value_M, row_M
    last = height - PIECE
    top_PM = _largest_of_pieces(values_VM[: height - height % PIECE])
    if height % PIECE:
        top_PM = torch.cat((top_PM, values_VM[last:].amax(dim=0, keepdim=True)))
    first_M = (top_PM.argmax(dim=0) * PIECE).clamp(max=last)
    piece_WM = values_VM.gather(0, first_M + torch.arange(PIECE)[:, None])
    value_M, offset_M = piece_WM.max(dim=0)
    return value_M, first_M + offset_M


def _largest_of_pieces(values_VM: Tensor) -> Tensor:
    """``[P, M]`` of whole pieces."""
    together, width = _rows_as_one(values_VM), values_VM.shape[1]
    largest_PL = values_VM.reshape(-1, PIECE // together, together * width).amax(dim=1)
    while largest_PL.shape[1] > width:
        largest_PL = torch.maximum(*largest_PL.chunk(2, dim=1))
    return largest_PL


def _rows_as_one(upright_VM: Tensor) -> int:
    """A power of two, 1 where nearly all numbers of a row are taken at once anyway."""
    width = upright_VM.shape[1]
    if 8 * (width % VECTOR) <= width:
        return 1
    return 8 if width >= 8 else MOST_AS_ONE
