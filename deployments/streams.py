"""Small combinators over async generators. Each closes what it consumes, so dropping the outermost one drops all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from engine.errors import DeadlineExceededError

T = TypeVar("T")


async def until(stream: AsyncGenerator[T], timeout_s: float | None) -> AsyncGenerator[T]:
    """Items of ``stream``; DeadlineExceededError when an item is not there ``timeout_s`` after the first was asked."""
    deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
    async with aclosing(stream):
        while True:
            scope = asyncio.timeout_at(deadline)
            try:
                async with scope:
                    item = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not scope.expired():
                    raise
                raise DeadlineExceededError("The request's time passed before it finished.", "timeout_ms") from None
            yield item


async def merge(streams: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[tuple[int, T]]:
    """Items of all streams as they come, each with its stream's index; the first error ends all. A single stream needs
    no tasks: most requests are one."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return
    waiting = {asyncio.ensure_future(_next(stream)): index for index, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(task)
                try:
                    item = task.result()
                except StopAsyncIteration:
                    continue
                waiting[asyncio.ensure_future(_next(streams[index]))] = index
                yield index, item
    finally:
        await _cancel(waiting)
        for stream in streams:
            await stream.aclose()


async def with_pauses(stream: AsyncGenerator[T], pause_s: float) -> AsyncGenerator[T | None]:
    """Items of ``stream``, and None whenever nothing came for ``pause_s``."""
    task: asyncio.Task[T] | None = None
    try:
        while True:
            task = task or asyncio.ensure_future(_next(stream))
            done, _ = await asyncio.wait({task}, timeout=pause_s)
            if not done:
                yield None
                continue
            finished, task = task, None
            try:
                item = finished.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if task is not None:
            await _cancel([task])
        await stream.aclose()


async def _next(stream: AsyncGenerator[T]) -> T:
    return await anext(stream)


async def _cancel(tasks: Sequence[asyncio.Task[T]] | dict[asyncio.Task[T], int]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
