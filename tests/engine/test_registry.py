"""Tables of what can be chosen by name."""

from __future__ import annotations

import pytest

from engine.cache import CACHE_POLICIES
from engine.cache.policy import CachePolicy
from engine.decoding import DECODERS
from engine.decoding.decoder import Decoder
from engine.errors import UnknownStrategyError
from engine.registry import Registry


def test_an_unknown_name_lists_what_exists() -> None:
    table: Registry[object] = Registry("colour", {"red": "builtins:int", "blue": "builtins:str"})
    with pytest.raises(UnknownStrategyError, match="unknown colour 'green'; choose one of: blue, red") as caught:
        table.get("green")
    assert caught.value.param == "colour"
    assert table.get("red") is int
    assert ("red" in table, "green" in table, len(table), list(table)) == (True, False, 2, ["red", "blue"])


def test_a_broken_entry_surfaces_as_itself() -> None:
    table: Registry[object] = Registry("colour", {"grey": "no_such_module:Grey", "odd": "builtins:no_such_class"})
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        table.get("grey")
    with pytest.raises(AttributeError, match="no_such_class"):
        table.get("odd")


def test_every_entry_is_of_its_kind() -> None:
    assert all(issubclass(DECODERS.get(name), Decoder) for name in DECODERS)
    assert all(issubclass(CACHE_POLICIES.get(name), CachePolicy) for name in CACHE_POLICIES)
