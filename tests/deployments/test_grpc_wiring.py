"""deployments/grpc_wiring.py: a stream that is dropped anywhere cancels its source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.grpc_wiring import add_generation_servicer, cancellable


class Context:
    """A call's context; asking for the peer after the call is over would be a crash."""

    over = False
    code = None

    def peer(self) -> str:
        assert not self.over
        return "ipv4:127.0.0.1:5"

    def set_code(self, code: int) -> None:
        self.code = code


class Source:
    """As Serve's handlers: notices a cancellation only while it waits, never while it is suspended at a yield."""

    cancelled = False
    peer: str | None = None

    async def stream(self, request: Any, context: Any) -> AsyncGenerator[bytes]:
        for number in range(100):
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                self.cancelled = True
                self.peer = context.peer()
                raise
            yield bytes([number])


async def test_a_stream_is_passed_on_in_order() -> None:
    source = Source()
    chunks = [chunk async for chunk in cancellable(source.stream)(None, Context())]  # type: ignore[attr-defined]
    assert chunks == [bytes([number]) for number in range(100)]
    assert not source.cancelled


async def test_dropping_right_after_a_chunk_cancels() -> None:
    source = Source()
    stream: Any = cancellable(source.stream)(None, Context())
    await anext(stream)
    await stream.aclose()
    assert source.cancelled


async def test_a_stream_that_outlives_its_call_does_not_touch_it() -> None:
    source, context = Source(), Context()
    stream: Any = cancellable(source.stream)(None, context)
    await anext(stream)
    context.over = True
    del stream  # as gRPC does when a write is cancelled; the generator is closed by the event loop
    await asyncio.sleep(0.05)
    assert source.cancelled
    assert source.peer == "ipv4:127.0.0.1:5"


async def test_cancelling_a_waiting_call_waits_for_its_source() -> None:
    source = Source()

    async def read() -> None:
        async for _ in cancellable(source.stream)(None, Context()):  # type: ignore[attr-defined]
            pass

    call = asyncio.create_task(read())
    await asyncio.sleep(0.012)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert source.cancelled


async def test_the_rest_of_the_context_is_the_calls() -> None:
    context = Context()

    async def stream(request: Any, seen: Any) -> AsyncGenerator[bytes]:
        seen.set_code(7)
        yield b"x"

    assert [chunk async for chunk in cancellable(stream)(None, context)] == [b"x"]  # type: ignore[attr-defined]
    assert context.code == 7


async def test_errors_pass() -> None:
    async def broken(request: Any, context: Any) -> AsyncGenerator[bytes]:
        yield b"a"
        raise KeyError("x")

    stream: Any = cancellable(broken)(None, Context())
    assert await anext(stream) == b"a"
    with pytest.raises(KeyError):
        await anext(stream)


def test_only_streams_are_wrapped_and_the_server_is_left_as_it_was() -> None:
    made: dict[str, Any] = {}

    def original(service_method: str, streaming_type: Any) -> Any:
        return Source().stream

    class Server:
        service_handler_factory = staticmethod(original)

        def add_generic_rpc_handlers(self, handlers: Any) -> None:
            for kind in ("UNARY_UNARY", "UNARY_STREAM"):
                made[kind] = self.service_handler_factory(service_method="m", streaming_type=SimpleNamespace(name=kind))

        def add_registered_method_handlers(self, name: str, handlers: Any) -> None:
            assert name == "lacuna.v1.Generation"

    server = Server()
    add_generation_servicer(SimpleNamespace(Generate=1, GenerateStream=1, ListModels=1, ListStrategies=1), server)
    assert made["UNARY_UNARY"].__name__ == "stream"
    assert made["UNARY_UNARY"].__qualname__.startswith("Source")
    assert made["UNARY_STREAM"].__qualname__.startswith("cancellable")
    assert server.service_handler_factory is original
