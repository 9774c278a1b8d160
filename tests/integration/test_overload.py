"""A full queue refuses with a hint; leaving in any state gives everything back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.integration.conftest import QUEUE_DEPTH, SLOTS, Service

BODY: dict[str, Any] = {
    "model": "lacuna-tiny-sdar",
    "prompt": "Tell a long story.",
    "max_tokens": 200,
    "ignore_eos": True,
    "diffusion": {"decoder": "sequential"},
}


def test_whoever_leaves_while_running_or_waiting_gives_everything_back(
    service: Service, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """More requests than slots and places; all clients go at about the same time."""

    def leave(_: int) -> str:
        try:
            with httpx.Client(base_url=service.base_url, timeout=1.0) as client:
                return str(client.post("/v1/completions", json=BODY | {"n": 2}).status_code)
        except httpx.TimeoutException:
            return "left"

    with ThreadPoolExecutor(24) as pool:
        results = list(pool.map(leave, range(24)))
    assert "left" in results
    eventually(service.is_idle)


def test_beyond_the_queue_is_429(service: Service) -> None:
    """120 at once are more than may run and wait. Nobody gets anything but an answer or a clear refusal."""
    statuses: list[tuple[int, str | None]] = []
    lock = threading.Lock()

    def ask(_: int) -> None:
        with httpx.Client(base_url=service.base_url, timeout=100) as client:
            response = client.post("/v1/completions", json=BODY | {"max_tokens": 100, "timeout_ms": 90_000})
        with lock:
            statuses.append((response.status_code, response.headers.get("retry-after")))

    started = time.monotonic()
    with ThreadPoolExecutor(120) as pool:
        list(pool.map(ask, range(120)))
    codes = [code for code, _ in statuses]
    assert set(codes) <= {200, 429}, f"{sorted(set(codes))} after {time.monotonic() - started:.0f} s"
    assert codes.count(200) >= SLOTS + QUEUE_DEPTH
    assert 429 in codes
    assert all(hint is not None and int(hint) >= 1 for code, hint in statuses if code == 429)
    assert service.is_idle()
