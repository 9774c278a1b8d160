"""Per-slot numbers on the device: the knobs of requests and the memory of decoders.

Shape legend: S slots, N rows of a forward, W width of a wide column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column: ``[S]``, or ``[S, width]`` when ``width`` is not 0. ``fill`` is its value at admission."""

    dtype: torch.dtype
    width: int = 0
    fill: float = 0


class ColumnView(Mapping[str, Tensor]):
    """The columns under one prefix at given slots: ``view["threshold"] -> [N]``. Gathers when read."""

    def __init__(self, columns: Mapping[str, Tensor], prefix: str, names: frozenset[str], slots_N: Tensor) -> None:
        self._columns = columns
        self._prefix = prefix
        self._names = names
        self._slots_N = slots_N

    def __getitem__(self, name: str) -> Tensor:
        return self._columns[f"{self._prefix}.{name}"][self._slots_N]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Columns:
    """Owns the columns of all slots. Columns appear when a request first needs them and stay."""

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self._num_slots = num_slots
        self._device = device
        self._tensors: dict[str, Tensor] = {}
        self._fills: dict[str, float] = {}
        self._names: dict[str, frozenset[str]] = {}

    def declare(self, prefix: str, specs: Mapping[str, ColumnSpec]) -> None:
        """Make the columns ``prefix.name``; a prefix is declared once, later calls change nothing."""
        if prefix in self._names:
            return
        for name, spec in specs.items():
            shape = (self._num_slots, spec.width) if spec.width else (self._num_slots,)
            key = f"{prefix}.{name}"
            self._tensors[key] = torch.full(shape, spec.fill, dtype=spec.dtype, device=self._device)
            self._fills[key] = spec.fill
        self._names[prefix] = frozenset(specs)

    def write(self, prefix: str, slot: int, values: Mapping[str, object]) -> None:
        """Set every column of ``prefix`` at ``slot``: the given value (a number, or a list shorter than the column's
        width), else the column's fill."""
        for name in self._names[prefix]:
            key = f"{prefix}.{name}"
            column = self._tensors[key]
            column[slot] = self._fills[key]
            value = values.get(name)
            if isinstance(value, (list, tuple)):
                column[slot, : len(value)] = torch.tensor(value, dtype=column.dtype, device=self._device)
            elif value is not None:
                assert isinstance(value, (int, float)), name
                column[slot] = value

    def view(self, prefix: str, slots_N: Tensor) -> ColumnView:
        """The columns of ``prefix`` at ``slots_N``."""
        return ColumnView(self._tensors, prefix, self._names[prefix], slots_N)

    def store(self, prefix: str, slots_N: Tensor, values: Mapping[str, Tensor]) -> None:
        """Write new values ``[N, ...]`` at ``slots_N`` (distinct slots)."""
        for name, value in values.items():
            column = self._tensors[f"{prefix}.{name}"]
            column[slots_N] = value.to(column.dtype)


def knob_columns(params_type: type) -> dict[str, ColumnSpec]:
    """One column per field of a ``Params`` dataclass: float32 for floats, int64 for integers and booleans."""
    specs = {}
    for item in fields(params_type):
        assert isinstance(item.default, (bool, int, float)), f"{params_type.__name__}.{item.name} needs a number"
        dtype = torch.float32 if isinstance(item.default, float) else torch.int64
        specs[item.name] = ColumnSpec(dtype, fill=item.default)
    return specs
