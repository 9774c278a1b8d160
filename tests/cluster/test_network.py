"""The interface that the ranks use."""

from __future__ import annotations

import pytest

from cluster.network import GLOO_INTERFACE, interface_of, own_address, use_interface_of


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None, "an address of the documentation's network is nobody's"
    assert interface_of(own_address()) is not None


def test_the_operators_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GLOO_INTERFACE, "ib0")
    assert use_interface_of("127.0.0.1") == "ib0"


def test_without_a_choice_it_is_the_nodes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GLOO_INTERFACE, raising=False)
    assert use_interface_of("203.0.113.7") is None
    assert use_interface_of("127.0.0.1") == "lo"
