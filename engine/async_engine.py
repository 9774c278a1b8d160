"""The engine for servers: one thread owns the LLMEngine, any number of asyncio tasks talk to it.

This is the only bridge between the engine and asyncio. Dropping the consumer of :meth:`AsyncEngine.generate` (closing
or cancelling it) aborts the request: its slot and pages are free before the next forward is planned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from engine.config import EngineConfig
from engine.core import EngineStats
from engine.errors import EngineDeadError, LacunaError
from engine.llm_engine import LLMEngine
from engine.models.spec import ModelSpec
from engine.outputs import RequestOutput
from engine.sequence import GenerationRequest, Sequence
from engine.step_meter import StepReadings
from engine.strategy import Strategy
from engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

STALL_TIMEOUT_S = 300.0
"""A forward that takes longer than this counts as hung."""

BEAT_S = 1.0
"""How often an idle engine sends its followers a heartbeat."""


class Followers(Protocol):
    """The other ranks of a sharded engine. Both are called in the engine's thread, between forwards."""

    def beat(self) -> None:
        """Show them that the engine lives, and learn that they do; an exception ends the engine."""

    def close(self, failure: BaseException | None) -> None:
        """The engine has stopped, because of ``failure`` if it failed. Does not raise."""


@dataclass(frozen=True, slots=True, eq=False)
class _Subscriber:
    """Where the outputs of a request go: a queue that lives on an event loop."""

    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[RequestOutput | LacunaError]


@dataclass(frozen=True, slots=True)
class _Add:
    sequence: Sequence
    subscriber: _Subscriber


@dataclass(frozen=True, slots=True)
class _Abort:
    """``subscriber`` tells the request from another of the same id, which was refused."""

    request_id: str
    subscriber: _Subscriber


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


class AsyncEngine:
    """Owns the engine's thread and the subscribers of running requests."""

    def __init__(
        self, engine: LLMEngine, *, stall_timeout_s: float = STALL_TIMEOUT_S, followers: Followers | None = None
    ) -> None:
        self._engine = engine
        self._followers = followers
        self._stall_timeout_s = stall_timeout_s
        self._inbox: SimpleQueue[_Add | _Abort | _Stop] = SimpleQueue()
        self._subscribers: dict[str, _Subscriber] = {}
        self._failure: BaseException | None = None
        self._ended = False
        self._ending = threading.Lock()  # nothing enters inbox or subscribers once they have been emptied
        self._step_started_s: float | None = None
        self._stats = engine.stats()
        self._thread = threading.Thread(target=self._run, name="lacuna-engine", daemon=True)

    @property
    def spec(self) -> ModelSpec:
        return self._engine.spec

    @property
    def tokenizer(self) -> Tokenizer:
        return self._engine.tokenizer

    @property
    def config(self) -> EngineConfig:
        return self._engine.config

    @property
    def max_model_len(self) -> int:
        return self._engine.max_model_len

    def start(self) -> None:
        """Start the thread; requests are taken from now on."""
        self._thread.start()

    async def close(self) -> None:
        """Stop after the running forward; requests that are still running end with EngineDeadError."""
        self._inbox.put(_Stop())
        if self._thread.ident is None:
            self._end_all()
        else:
            await asyncio.to_thread(self._thread.join)

    def fail(self, error: BaseException) -> None:
        """End every request with EngineDeadError now, from any thread, even while a forward hangs: for whoever learns
        that the ranks cannot go on."""
        self._failure = self._failure or error
        self._end_all()
        self._inbox.put(_Stop())

    def strategy(self, options: Mapping[str, object]) -> Strategy:
        """Validate a strategy's options; errors name the option."""
        return self._engine.strategy(options)

    def describe_strategies(self) -> list[dict[str, object]]:
        return self._engine.describe_strategies()

    def presets(self) -> dict[str, dict[str, object]]:
        return self._engine.presets()

    def stats(self) -> EngineStats:
        """The state after the last forward."""
        return self._stats

    def readings(self) -> StepReadings:
        """What has been measured of the steps so far."""
        return self._engine.readings()

    def check_health(self) -> None:
        """EngineDeadError when the thread has ended or a forward hangs."""
        if self._failure is not None or not self._thread.is_alive():
            raise self._dead()
        started_s = self._step_started_s
        if started_s is not None and time.monotonic() - started_s > self._stall_timeout_s:
            raise EngineDeadError(f"a forward has been running for more than {self._stall_timeout_s:.0f} s")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[RequestOutput]:
        """Increments of one request, the last with its finish reason.

        Errors of the request (InvalidRequestError, OverloadedError ...) are raised at the first increment,
        EngineDeadError at any.
        """
        sequence = self._engine.validate(request)
        self.check_health()
        subscriber = _Subscriber(asyncio.get_running_loop(), asyncio.Queue())
        self._submit(_Add(sequence, subscriber))
        finished = False
        try:
            while not finished:
                item = await subscriber.queue.get()
                if isinstance(item, LacunaError):
                    finished = True
                    raise item
                finished = item.finished
                yield item
        finally:
            if not finished:
                self._inbox.put(_Abort(request.request_id, subscriber))

    def _submit(self, command: _Add) -> None:
        with self._ending:
            if self._ended:
                raise self._dead()
            self._inbox.put(command)

    def _dead(self) -> EngineDeadError:
        return EngineDeadError(f"the engine has stopped: {self._failure or 'it was closed'}")

    def _run(self) -> None:
        try:
            while self._take_commands():
                if self._engine.has_unfinished_requests():
                    self._step()
                self._stats = self._engine.stats()
        except Exception as error:
            logger.exception("the engine failed; its requests are ended")
            self._failure = self._failure or error
        self._end_all()
        if self._followers is not None:
            self._followers.close(self._failure)

    def _step(self) -> None:
        self._step_started_s = time.monotonic()
        outputs = self._engine.step()
        self._step_started_s = None
        deliveries: defaultdict[asyncio.AbstractEventLoop, list[tuple[_Subscriber, RequestOutput | LacunaError]]]
        deliveries = defaultdict(list)
        with self._ending:
            for output in () if self._ended else outputs:
                subscriber = self._subscribers[output.request_id]
                deliveries[subscriber.loop].append((subscriber, output.error or output))
                if output.finished:
                    del self._subscribers[output.request_id]
        for loop, items in deliveries.items():
            _call(loop, items)

    def _take_commands(self) -> bool:
        """Act on everything in the inbox, waiting only when there is nothing to run; False after a stop."""
        idle = not self._engine.has_unfinished_requests()
        while True:
            try:
                command = self._inbox.get(idle, None if self._followers is None else BEAT_S)
            except Empty:
                if not idle or self._followers is None:
                    return True
                self._followers.beat()
                continue
            idle = False
            if isinstance(command, _Stop):
                return False
            if isinstance(command, _Abort):
                self._abort(command)
            else:
                self._add(command)

    def _add(self, command: _Add) -> None:
        try:
            with self._ending:
                if self._ended:
                    raise self._dead()
                self._engine.add(command.sequence)
                self._subscribers[command.sequence.request_id] = command.subscriber
        except LacunaError as error:
            _call(command.subscriber.loop, [(command.subscriber, error)])

    def _abort(self, command: _Abort) -> None:
        with self._ending:
            known = self._subscribers.get(command.request_id) is command.subscriber
            if known:
                del self._subscribers[command.request_id]
        if known:
            self._engine.abort(command.request_id)

    def _end_all(self) -> None:
        """Tell every consumer that the engine is dead; a second call finds none."""
        with self._ending:
            self._ended = True
            pending = list(self._subscribers.values())
            self._subscribers.clear()
        with contextlib.suppress(Empty):
            while True:
                command = self._inbox.get(block=False)
                if isinstance(command, _Add):
                    pending.append(command.subscriber)
        self._engine.abandon(self._dead())
        for subscriber in pending:
            _call(subscriber.loop, [(subscriber, self._dead())])


def _call(loop: asyncio.AbstractEventLoop, items: Iterable[tuple[_Subscriber, RequestOutput | LacunaError]]) -> None:
    """Put items into their queues on their loop; a loop that has closed took its consumers with it."""
    try:
        loop.call_soon_threadsafe(_put, items)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _put(items: Iterable[tuple[_Subscriber, RequestOutput | LacunaError]]) -> None:
    for subscriber, item in items:
        subscriber.queue.put_nowait(item)
