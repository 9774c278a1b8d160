"""deployments/streams.py: order, errors, and that everything is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from deployments.streams import merge, until, with_pauses
from engine.errors import DeadlineExceededError


class Source:
    """Counts 0, 1, ... with a pause before each; knows whether it was closed."""

    def __init__(self, count: int, pause_s: float = 0.0, error: Exception | None = None) -> None:
        self.count, self.pause_s, self.error = count, pause_s, error
        self.closed = False

    async def stream(self) -> AsyncGenerator[int]:
        try:
            for number in range(self.count):
                await asyncio.sleep(self.pause_s)
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def test_merge_yields_everything_in_each_streams_order() -> None:
    sources = [Source(3), Source(0), Source(5, 0.001)]
    items = [item async for item in merge([source.stream() for source in sources])]
    assert [number for index, number in items if index == 0] == [0, 1, 2]
    assert [number for index, number in items if index == 2] == [0, 1, 2, 3, 4]
    assert len(items) == 8
    assert all(source.closed for source in sources)


async def test_merge_ends_with_the_first_error_and_closes_the_others() -> None:
    slow = Source(1000, 0.01)
    with pytest.raises(KeyError):
        async for _ in merge([slow.stream(), Source(1, error=KeyError("x")).stream()]):
            pass
    assert slow.closed


async def test_dropping_a_merge_closes_its_streams() -> None:
    sources = [Source(1000, 0.001), Source(1000, 10)]
    merged = merge([source.stream() for source in sources])
    await anext(merged)
    await merged.aclose()
    assert all(source.closed for source in sources)


async def test_until_stops_at_the_deadline_and_closes() -> None:
    source = Source(1000, 0.02)
    with pytest.raises(DeadlineExceededError) as caught:
        await _drain(until(source.stream(), 0.1))
    assert caught.value.param == "timeout_ms"
    assert source.closed


async def test_until_leaves_other_timeouts_alone() -> None:
    with pytest.raises(TimeoutError, match="inner"):
        async for _ in until(Source(1, error=TimeoutError("inner")).stream(), 10):
            pass


async def test_until_without_a_limit_is_transparent() -> None:
    assert [number async for number in until(Source(3).stream(), None)] == [0, 1, 2]


async def test_pauses_are_marked_and_nothing_is_lost() -> None:
    items = [item async for item in with_pauses(Source(3, 0.05).stream(), 0.02)]
    assert [item for item in items if item is not None] == [0, 1, 2]
    assert items.count(None) >= 3


async def test_dropping_a_paused_stream_closes_it() -> None:
    source = Source(3, 10)
    paused = with_pauses(source.stream(), 0.01)
    assert await anext(paused) is None
    await paused.aclose()
    assert source.closed


async def test_errors_pass_through_pauses() -> None:
    with pytest.raises(KeyError):
        async for _ in with_pauses(Source(1, error=KeyError("x")).stream(), 1):
            pass


async def _drain(stream: AsyncGenerator[int]) -> None:
    async for _ in stream:
        pass
