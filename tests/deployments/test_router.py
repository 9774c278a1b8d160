"""deployments/router.py: waiting, waking, giving up."""

from __future__ import annotations

import asyncio

import pytest

from deployments import router as router_module
from deployments.messages import AdmissionRequest
from deployments.router import Router
from engine.errors import DeadlineExceededError, ModelNotFoundError, OverloadedError


def ask(key: str, model: str = "m", cost: int = 1, timeout_s: float = 30.0) -> AdmissionRequest:
    return AdmissionRequest(key=key, model=model, cost=cost, priority=0, timeout_s=timeout_s)


async def test_admits_waits_and_wakes() -> None:
    router = Router({"m": 1}, max_queue_depth=4)
    assert await router.admit(ask("a")) is None
    waiting = asyncio.create_task(router.admit(ask("b")))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert router.record_autoscaling_stats() == {"queue_depth": 1.0, "in_flight": 1.0}
    await router.release("m", "a")
    assert await asyncio.wait_for(waiting, 1) is None
    await router.release("m", "b")
    assert router.record_autoscaling_stats() == {"queue_depth": 0.0, "in_flight": 0.0}


async def test_models_do_not_share_places() -> None:
    router = Router({"m": 1, "other": 1}, max_queue_depth=1)
    assert await router.admit(ask("a")) is None
    assert await router.admit(ask("b", model="other")) is None


async def test_refusals_are_values() -> None:
    router = Router({"m": 1}, max_queue_depth=1)
    assert isinstance(await router.admit(ask("x", model="none")), ModelNotFoundError)
    await router.admit(ask("a"))
    waiting = asyncio.create_task(router.admit(ask("b")))
    await asyncio.sleep(0.01)
    assert isinstance(await router.admit(ask("c")), OverloadedError)
    waiting.cancel()


async def test_a_cancelled_wait_leaves_the_queue() -> None:
    router = Router({"m": 1}, max_queue_depth=4)
    await router.admit(ask("a"))
    waiting = asyncio.create_task(router.admit(ask("b")))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert router.record_autoscaling_stats()["queue_depth"] == 0
    await router.release("m", "a")
    assert await asyncio.wait_for(router.admit(ask("c")), 1) is None


async def test_waiting_ends_with_the_deadline() -> None:
    router = Router({"m": 1}, max_queue_depth=4)
    await router.admit(ask("a"))
    assert isinstance(await asyncio.wait_for(router.admit(ask("b", timeout_s=0.05)), 1), DeadlineExceededError)
    assert router.record_autoscaling_stats()["queue_depth"] == 0


async def test_a_lost_ingress_does_not_hold_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "LEASE_GRACE_S", 0.05)
    monkeypatch.setattr(router_module, "LEASE_CHECK_S", 0.02)
    router = Router({"m": 1}, max_queue_depth=4)
    await router.admit(ask("lost", timeout_s=0.05))
    assert await asyncio.wait_for(router.admit(ask("next")), 2) is None


async def test_release_of_unknown_keys_is_harmless() -> None:
    router = Router({"m": 1}, max_queue_depth=4)
    await router.release("m", "never")
    await router.release("none", "never")
    assert router.record_autoscaling_stats() == {"queue_depth": 0.0, "in_flight": 0.0}
