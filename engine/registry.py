"""Explicit tables of what can be chosen by name: one line each, imported when first used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from engine.errors import UnknownStrategyError

T = TypeVar("T")


class Registry(Generic[T]):
    """A read-only table from a name to ``"module:Class"``.

    An import error of an entry surfaces as itself; only a name that is not in the table is an "unknown" error.
    """

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self._table = dict(table)

    def get(self, name: str) -> type[T]:
        """Return the class, or raise UnknownStrategyError that lists what exists."""
        target = self._table.get(name)
        if target is None:
            known = ", ".join(sorted(self._table))
            raise UnknownStrategyError(f"unknown {self.kind} {name!r}; choose one of: {known}", self.kind)
        module, _, attribute = target.partition(":")
        return cast("type[T]", getattr(importlib.import_module(module), attribute))

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)
