"""deployments/bench/load/clients.py over HTTP against the whole application with made-up engines, without Serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn

from deployments.api_keys import KeyRing
from deployments.bench.load.clients import http_client
from deployments.bench.load.record import Record
from deployments.bench.load.requests import LoadRequest
from deployments.config import AppConfig
from deployments.http_app import build_http_app
from engine.errors import OverloadedError, RequestAbortedError
from tests.deployments.fakes import FakeEngine, FakeRouter, metered

CONFIG = AppConfig.parse({"models": "fake=/x"})


@asynccontextmanager
async def served(engine: FakeEngine, router: FakeRouter | None = None) -> AsyncIterator[str]:
    """The application behind a real socket."""
    app = build_http_app(metered(engine, router), CONFIG, KeyRing([]))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


async def ask(base_url: str, *, stream: bool = True, timeout_s: float = 10.0) -> Record:
    request = LoadRequest(prompt="hi", max_tokens=8, model="fake", stream=stream, timeout_s=timeout_s)
    record = Record(request, time.perf_counter())
    async with http_client(base_url) as client:
        await client.ask(record)
    return record


async def test_blocks_are_counted_as_they_come() -> None:
    async with served(FakeEngine(["a", "b", "c"], delay_s=0.02)) as base_url:
        record = await ask(base_url)
    assert record.succeeded
    assert len(record.chunks_s) == 3
    assert (record.prompt_tokens, record.completion_tokens, record.forwards) == (3, 3, 3)
    assert record.scheduled_s <= record.sent_s < record.chunks_s[0] < record.chunks_s[-1] <= record.ended_s
    assert min(record.gaps_s()) > 0.005
    assert record.first_s < record.total_s


async def test_an_answer_that_comes_whole_has_no_blocks() -> None:
    async with served(FakeEngine(["a", "b"])) as base_url:
        record = await ask(base_url, stream=False)
    assert record.succeeded
    assert (record.chunks_s, record.completion_tokens) == ([], 2)
    assert record.first_s == record.total_s


@pytest.mark.parametrize("stream", [True, False])
async def test_refusals_are_named_by_status_and_code(stream: bool) -> None:
    router = FakeRouter(OverloadedError("full", "max_queue_depth", retry_after_s=1.0))
    async with served(FakeEngine(), router) as base_url:
        assert (await ask(base_url, stream=stream)).error == "429 overloaded"


async def test_an_error_in_the_stream_is_no_answer() -> None:
    engine = FakeEngine(["a", "b"], fail_after=1, error=RequestAbortedError("gone"))
    async with served(engine) as base_url:
        record = await ask(base_url)
    assert record.error == "in the stream: request_aborted"
    assert len(record.chunks_s) == 1


async def test_slow_and_missing_services_are_named() -> None:
    async with served(FakeEngine(["a"], delay_s=5)) as base_url:
        record = await ask(base_url, timeout_s=0.1)
        assert record.error
        assert record.total_s < 2
    assert (await ask(base_url)).error == "connection: ClientConnectorError"
