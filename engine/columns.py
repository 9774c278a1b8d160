"""Per-slot numbers on the device: the knobs of requests and the memory of decoders and transforms.

Shape legend: S slots, N rows of a forward, B width of their widest block, M cells (a slot and a place in its block),
W width of a wide column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from engine.transfer import to_device

MAX_LISTED_TOKENS = 16
"""Most token ids of a knob that is a list of them."""

MAX_STOP_IDS = 32
"""Most stop ids of a request, the model's own included."""


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column: a number per slot, or ``width`` of them. ``fill`` is the value at admission.

    ``per_position`` columns hold as much for every place of a block: ``[S, B]`` or ``[S, B, width]``.
    """

    dtype: torch.dtype
    width: int = 0
    fill: float = 0
    per_position: bool = False


class ColumnView(Mapping[str, Tensor]):
    """The columns under one prefix at given slots: ``view["threshold"] -> [N]``. Gathers when read.

    Columns per position come as wide as the forward's blocks, ``[N, B, ...]``; places that a slot has no memory of
    (its own blocks are shorter) hold the column's fill.
    """

    def __init__(self, columns: Columns, prefix: str, slots_N: Tensor, block_width: int) -> None:
        self._columns = columns
        self._prefix = prefix
        self._slots_N = slots_N
        self._block_width = block_width

    def __getitem__(self, name: str) -> Tensor:
        column, spec = self._columns.column(self._prefix, name)
        values = column[self._slots_N]
        if not spec.per_position or values.shape[1] == self._block_width:
            return values
        fitted = values.new_full((len(values), self._block_width, *values.shape[2:]), spec.fill)
        known = min(self._block_width, values.shape[1])
        fitted[:, :known] = values[:, :known]
        return fitted

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns.names(self._prefix))

    def __len__(self) -> int:
        return len(self._columns.names(self._prefix))


class CellView(Mapping[str, Tensor]):
    """The columns under one prefix at given cells: ``[M]`` or ``[M, width]``. Gathers when read; :meth:`store` writes
    columns per position."""

    def __init__(self, columns: Columns, prefix: str, slots_M: Tensor, offset_M: Tensor) -> None:
        self._columns = columns
        self._prefix = prefix
        self._slots_M = slots_M
        self._offset_M = offset_M

    def __getitem__(self, name: str) -> Tensor:
        column, spec = self._columns.column(self._prefix, name)
        return column[self._slots_M, self._offset_M] if spec.per_position else column[self._slots_M]

    def store(self, name: str, values_M: Tensor) -> None:
        """Write ``[M]`` or ``[M, width]``; narrower values leave the rest of the width as it is."""
        column, spec = self._columns.column(self._prefix, name)
        assert spec.per_position, name
        if spec.width:
            column[self._slots_M, self._offset_M, : values_M.shape[1]] = values_M.to(column.dtype)
        else:
            column[self._slots_M, self._offset_M] = values_M.to(column.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns.names(self._prefix))

    def __len__(self) -> int:
        return len(self._columns.names(self._prefix))


class Columns:
    """Owns the columns of all slots. Columns appear when a request first needs them and stay.

    Columns that hold a vector for every place of a block are the large ones: they grow with the slots that have needed
    them, all others exist for every slot at once. ``num_moves`` counts columns that have got new memory because they
    grew: who keeps a column's address looks at it.
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self._num_slots = num_slots
        self._device = device
        self._tensors: dict[tuple[str, str], Tensor] = {}
        self.num_moves = 0
        self._specs: dict[str, dict[str, ColumnSpec]] = {}

    def declare(self, prefix: str, specs: Mapping[str, ColumnSpec], block_length: int = 1) -> None:
        """Make the columns ``prefix.name`` for blocks of that length. What exists keeps its values and grows where
        blocks or widths are larger than any before."""
        known = self._specs.setdefault(prefix, {})
        for name, spec in specs.items():
            known[name] = spec
            large = spec.per_position and spec.width > 0
            shape = [0 if large else self._num_slots]
            shape += [block_length] if spec.per_position else []
            shape += [spec.width] if spec.width else []
            self._grow(prefix, name, shape)

    def write(self, prefix: str, slot: int, values: Mapping[str, object]) -> None:
        """Set every column of ``prefix`` at ``slot``: the given value (a number, or a list shorter than the column's
        width), else the column's fill."""
        for name, spec in self._specs[prefix].items():
            if slot >= len(self._tensors[prefix, name]):
                rows = min(1 << slot.bit_length(), self._num_slots)
                self._grow(prefix, name, [rows, *self._tensors[prefix, name].shape[1:]])
            column = self._tensors[prefix, name]
            column[slot] = spec.fill
            value = values.get(name)
            if isinstance(value, (list, tuple)):
                column[slot, : len(value)] = to_device(torch.tensor(value, dtype=column.dtype), self._device)
            elif value is not None:
                assert isinstance(value, (int, float)), name
                column[slot] = value

    def reset(self, prefix: str, slots_N: Tensor) -> None:
        """Put every column of ``prefix`` back to its fill at ``slots_N``."""
        for name, spec in self._specs[prefix].items():
            self._tensors[prefix, name][slots_N] = spec.fill

    def view(self, prefix: str, slots_N: Tensor, block_width: int = 1) -> ColumnView:
        """The columns of ``prefix`` at ``slots_N``, for blocks of ``block_width`` places."""
        return ColumnView(self, prefix, slots_N, block_width)

    def cells(self, prefix: str, slots_M: Tensor, offset_M: Tensor) -> CellView:
        """The columns of ``prefix`` at places ``offset_M`` of the blocks of ``slots_M``."""
        return CellView(self, prefix, slots_M, offset_M)

    def store(self, prefix: str, slots_N: Tensor, values: Mapping[str, Tensor]) -> None:
        """Write new values ``[N, ...]`` at ``slots_N`` (distinct slots). Places behind a column's longest block are
        dropped: no block of these slots has them."""
        for name, value in values.items():
            column, spec = self.column(prefix, name)
            if spec.per_position:
                known = min(column.shape[1], value.shape[1])
                column[slots_N, :known] = value[:, :known].to(column.dtype)
            else:
                column[slots_N] = value.to(column.dtype)

    def column(self, prefix: str, name: str) -> tuple[Tensor, ColumnSpec]:
        """The whole column, and what was declared of it."""
        return self._tensors[prefix, name], self._specs[prefix][name]

    def names(self, prefix: str) -> tuple[str, ...]:
        """Columns under ``prefix``."""
        return tuple(self._specs[prefix])

    def _grow(self, prefix: str, name: str, shape: list[int]) -> None:
        """Make the column at least as large as ``shape`` in every dimension."""
        spec = self._specs[prefix][name]
        old = self._tensors.get((prefix, name))
        if old is not None:
            shape = [max(pair) for pair in zip(shape, old.shape, strict=True)]
            if shape == list(old.shape):
                return
        grown = torch.full(shape, spec.fill, dtype=spec.dtype, device=self._device)
        if old is not None:
            grown[tuple(slice(length) for length in old.shape)] = old
            self.num_moves += 1
        self._tensors[prefix, name] = grown


def knob_columns(params_type: type) -> dict[str, ColumnSpec]:
    """One column per field of a ``Params`` dataclass: float32 for floats, int64 for integers and booleans, a wide
    int64 column (-1: no entry) for lists of token ids."""
    specs = {}
    for item in fields(params_type):
        if isinstance(item.default, tuple):
            specs[item.name] = ColumnSpec(torch.int64, width=MAX_LISTED_TOKENS, fill=-1)
            continue
        assert isinstance(item.default, (bool, int, float)), f"{params_type.__name__}.{item.name} needs a number"
        dtype = torch.float32 if isinstance(item.default, float) else torch.int64
        specs[item.name] = ColumnSpec(dtype, fill=item.default)
    return specs
