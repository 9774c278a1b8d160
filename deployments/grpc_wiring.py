"""The gRPC services as Serve registers them (``grpc_servicer_functions``), in the process of its proxy.

Serve's proxy forgets a stream whose client goes while a chunk is being written: the replica is then never told, and the
engine works to the end of the request. Clients mostly go right after they have read a chunk, so this is the usual
case. Streams are therefore read by a task of their own, which always waits for the next chunk and is cancelled there,
where Serve does pass the cancellation on. Such a task may outlive its call by a moment, so it sees the call through
``CallContext``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from protos.generation_pb2_grpc import add_GenerationServicer_to_server

StreamHandler = Callable[[Any, Any], AsyncIterator[bytes]]


def add_generation_servicer(servicer: Any, server: Any) -> None:
    """Register ``lacuna.v1.Generation``."""
    with _cancellable_streams(server):
        add_GenerationServicer_to_server(servicer, server)


def add_health_servicer(servicer: Any, server: Any) -> None:
    """Register ``grpc.health.v1.Health``."""
    with _cancellable_streams(server):
        add_HealthServicer_to_server(servicer, server)


class CallContext:
    """A call's context that may still be asked for the client's address when the call is over.

    gRPC reads the address from the call itself, whose memory is freed by then. Everything else lies in the context.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._peer = context.peer()

    def peer(self) -> str:
        """The client's address."""
        return str(self._peer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def cancellable(handler: StreamHandler) -> StreamHandler:
    """The same stream; closing or cancelling it, wherever it is, cancels ``handler`` while that waits.

    A call that is cancelled while it waits for a chunk lasts until the handler has ended.
    """

    async def stream(request: Any, context: Any) -> AsyncGenerator[bytes]:
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        reader = asyncio.create_task(_read(handler(request, CallContext(context)), chunks))
        try:
            while (chunk := await chunks.get()) is not None:
                yield chunk
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    return stream


async def _read(source: AsyncIterator[bytes], chunks: asyncio.Queue[bytes | None]) -> None:
    try:
        async for chunk in source:
            chunks.put_nowait(chunk)
    finally:
        chunks.put_nowait(None)


@contextmanager
def _cancellable_streams(server: Any) -> Iterator[None]:
    """While services are registered, Serve's server makes cancellable handlers for RPCs that stream answers."""
    make_handler = server.service_handler_factory

    def make_cancellable(service_method: str, streaming_type: Any) -> Any:
        handler = make_handler(service_method=service_method, streaming_type=streaming_type)
        return cancellable(handler) if streaming_type.name == "UNARY_STREAM" else handler

    server.service_handler_factory = make_cancellable
    try:
        yield
    finally:
        server.service_handler_factory = make_handler
