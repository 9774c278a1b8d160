"""How requests reach a service: HTTP with server-sent events, and gRPC.

Neither is the ``openai`` client: it makes Python objects of every chunk, and the generator shares its machine with
the server that it measures. aiohttp parses HTTP in C; here only the last event of a stream is read as JSON.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
import grpc
import grpc.aio
from google.protobuf.json_format import ParseDict

from deployments.bench.load.record import Record
from deployments.bench.load.requests import LoadRequest
from protos import generation_pb2 as pb
from protos import generation_pb2_grpc

_STRATEGY_FIELDS = ("decoder", "cache", "block_length", "preset")


class LoadClient(Protocol):
    """Asks one request and notes what came; a failure is an entry of the record, never raised."""

    async def ask(self, record: Record) -> None: ...


@asynccontextmanager
async def http_client(base_url: str, api_key: str = "") -> AsyncIterator[LoadClient]:
    """As many connections as there are requests in flight."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(base_url, connector=connector, headers=headers, timeout=timeout) as session:
        yield HttpClient(session)


@asynccontextmanager
async def grpc_client(address: str, api_key: str = "") -> AsyncIterator[LoadClient]:
    """One channel, as a program of a user has it."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield GrpcClient(generation_pb2_grpc.GenerationStub(channel), api_key)


class HttpClient:
    """POST /v1/completions."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, record: Record) -> None:
        record.sent_s = time.perf_counter()
        try:
            async with asyncio.timeout(record.request.timeout_s):
                await self._ask(record)
        except TimeoutError:
            record.error = "client timeout"
        except aiohttp.ClientError as error:
            record.error = f"connection: {type(error).__name__}"
        record.ended_s = time.perf_counter()

    async def _ask(self, record: Record) -> None:
        async with self._session.post("/v1/completions", json=http_body(record.request)) as response:
            if response.status != 200:
                record.error = _error_kind(response.status, await response.read())
            elif record.request.stream:
                await self._read_events(record, response.content)
            else:
                _note_http_usage(record, json.loads(await response.read())["usage"])

    async def _read_events(self, record: Record, content: aiohttp.StreamReader) -> None:
        """Blocks come as lines ``data: {...}``; a line with the usage or an error ends them, then ``[DONE]``."""
        async for line in content:
            if not line.startswith(b"data: {"):
                continue
            if line.startswith(b'data: {"error"'):
                record.error = f"in the stream: {json.loads(line[6:])['error']['code']}"
            elif b'"choices":[]' in line:
                _note_http_usage(record, json.loads(line[6:])["usage"])
            else:
                record.chunks_s.append(time.perf_counter())
        if not record.error and not record.completion_tokens:
            record.error = "in the stream: cut off"


def http_body(request: LoadRequest) -> dict[str, Any]:
    """The body of POST /v1/completions."""
    prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    body: dict[str, Any] = {
        "prompt": prompt,
        "max_tokens": request.max_tokens,
        "ignore_eos": request.ignore_eos,
        "timeout_ms": round(1000 * request.timeout_s),
    }
    body |= {"model": request.model} if request.model else {}
    body |= {"diffusion": dict(request.strategy)} if request.strategy else {}
    body |= {"priority": request.priority} if request.priority else {}
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def _error_kind(status: int, body: bytes) -> str:
    try:
        return f"{status} {json.loads(body)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return f"{status}"


def _note_http_usage(record: Record, usage: Mapping[str, Any]) -> None:
    record.prompt_tokens, record.completion_tokens = usage["prompt_tokens"], usage["completion_tokens"]
    record.forwards = usage.get("diffusion", {}).get("forwards", 0)


class GrpcClient:
    """Generate and GenerateStream."""

    def __init__(self, stub: generation_pb2_grpc.GenerationAsyncStub, api_key: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()

    async def ask(self, record: Record) -> None:
        record.sent_s = time.perf_counter()
        message = grpc_message(record.request)
        try:
            if record.request.stream:
                await self._read_chunks(record, message)
            else:
                answer = await self._stub.Generate(message, metadata=self._metadata, timeout=record.request.timeout_s)
                _note_grpc_usage(record, answer.usage)
        except grpc.aio.AioRpcError as error:
            record.error = error.code().name
        record.ended_s = time.perf_counter()

    async def _read_chunks(self, record: Record, message: pb.GenerateRequest) -> None:
        call = self._stub.GenerateStream(message, metadata=self._metadata, timeout=record.request.timeout_s)
        async for chunk in call:
            if chunk.HasField("usage"):
                _note_grpc_usage(record, chunk.usage)
            else:
                record.chunks_s.append(time.perf_counter())


def grpc_message(request: LoadRequest) -> pb.GenerateRequest:
    """The message of both RPCs."""
    message = pb.GenerateRequest(
        model=request.model,
        sampling=pb.Sampling(max_tokens=request.max_tokens, ignore_eos=request.ignore_eos),
        priority=request.priority,
        timeout_ms=round(1000 * request.timeout_s),
    )
    if isinstance(request.prompt, str):
        message.text = request.prompt
    else:
        message.token_ids.ids.extend(request.prompt)
    fields = {name: value for name, value in request.strategy.items() if name in _STRATEGY_FIELDS}
    params = {name: value for name, value in request.strategy.items() if name not in _STRATEGY_FIELDS}
    if request.strategy:
        ParseDict(fields | {"params": params}, message.strategy)
    return message


def _note_grpc_usage(record: Record, usage: pb.Usage) -> None:
    record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
    record.forwards = usage.forwards
