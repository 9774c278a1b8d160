"""One sequence that outlives its replica: when that is lost, it goes on elsewhere from what the client has seen.

The engine that takes over is given the tokens that were final (``GenerateCall.generated``), and how many of them and
how much of their text the client has. It goes on behind the last whole block and hands out only what is new. Draws are
a hash of seed, step and position, and every drawn request has a seed, so the answer is the one of an undisturbed run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from deployments.messages import GenerateCall, Increment, SequenceOutcome
from engine.errors import EngineDeadError
from engine.outputs import Usage
from engine.work import WorkShape

logger = logging.getLogger(__name__)

MAX_REPLAYS = 8
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


class SequenceSource(Protocol):
    """Where increments come from: an EngineClient."""

    def generate(self, call: GenerateCall, replica: str = "") -> AsyncGenerator[Increment]: ...


@dataclass(slots=True)
class SequenceRun:
    """Owns what a sequence has handed out and what it has cost so far, over all its attempts.

    ``replica`` is where it runs now, "" leaves the choice to Serve.
    """

    call: GenerateCall
    shape: WorkShape
    replica: str = ""
    attempt: int = 0
    token_ids: list[int] = field(default_factory=list)
    pending_ids: tuple[int, ...] = ()
    num_chars: int = 0
    begun: bool = False
    finished: bool = False
    _spent: Usage = field(default_factory=Usage)
    _current: Usage = field(default_factory=Usage)

    async def increments(
        self, source: SequenceSource, move: Callable[[SequenceRun], Awaitable[str]], left_s: Callable[[], float]
    ) -> AsyncGenerator[Increment]:
        """Increments as if there had been one attempt. ``move`` finds another replica after a loss; ``left_s`` is the
        time that the request has left. EngineDeadError when replays do not help."""
        while True:
            try:
                stream = source.generate(self._attempt_call(left_s()), self.replica)
                async with aclosing(stream):
                    async for increment in stream:
                        yield self._take(increment)
                return
            except EngineDeadError as error:
                if self.attempt == MAX_REPLAYS or self.finished:
                    raise
                logger.warning("request %s lost its replica and goes on elsewhere: %s", self.call.request_id, error)
            await self._to_next_attempt(move)

    @property
    def outcome(self) -> SequenceOutcome:
        """What the replica where it ran last has done; of a replayed sequence it teaches nothing about strategies."""
        return SequenceOutcome(self.replica, self.shape, self._current, self.finished and self.attempt == 0)

    @property
    def num_left(self) -> int:
        """Tokens that may still come."""
        return self.call.sampling.max_tokens - len(self.token_ids)

    async def _to_next_attempt(self, move: Callable[[SequenceRun], Awaitable[str]]) -> None:
        self._spent = self._total(self._current)
        self._current = Usage()
        await asyncio.sleep(min(FIRST_PAUSE_S * 2**self.attempt, LONGEST_PAUSE_S))
        self.attempt += 1
        self.replica = await move(self)

    def _attempt_call(self, left_s: float) -> GenerateCall:
        if self.attempt == 0:
            return replace(self.call, timeout_s=left_s)
        return replace(
            self.call,
            request_id=f"{self.call.request_id}~{self.attempt}",
            attempt=self.attempt,
            generated=(*self.token_ids, *self.pending_ids)[: self.call.sampling.max_tokens - 1],
            num_shown=len(self.token_ids),
            shown_chars=self.num_chars,
            echo=self.call.echo and not self.begun,
            timeout_s=left_s,
        )

    def _take(self, increment: Increment) -> Increment:
        output = increment.output
        self.begun = True
        self.token_ids += output.token_ids
        self.pending_ids = output.pending_ids
        self.num_chars += len(output.text)
        self._current = output.usage
        self.finished = output.finished
        if self.attempt == 0:
            return increment
        return replace(increment, output=replace(output, usage=self._total(output.usage)))

    def _total(self, usage: Usage) -> Usage:
        """Usage over all attempts. Tokens count once, work counts as often as it was done."""
        return replace(
            usage,
            completion_tokens=usage.completion_tokens if self.attempt == 0 else len(self.token_ids),
            forwards=self._spent.forwards + usage.forwards,
            denoising_steps=self._spent.denoising_steps + usage.denoising_steps,
            positions_computed=self._spent.positions_computed + usage.positions_computed,
        )
