"""What one rank does at each step, as it happens: computing, exchanging tensors, sending or receiving plans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from engine.channel import ControlChannel
from engine.errors import ConfigError
from engine.executor import Executor
from engine.lockstep import PLAN
from engine.parallel import Group, Part
from engine.plan import IterationPlan, StepResult

IO_COUNTERS = Path("/proc/self/io")


@dataclass(slots=True, kw_only=True)
class Record:
    """One entry per collective (``call_s``: its duration) and per forward (the others). ``compute_s`` is CPU time of
    the rank's thread without collectives and channel; bytes are those that the process has written to sockets."""

    call_s: list[float] = field(default_factory=list)
    compute_s: list[float] = field(default_factory=list)
    tensor_bytes: list[int] = field(default_factory=list)
    plan_bytes: list[int] = field(default_factory=list)
    send_s: list[float] = field(default_factory=list)


def written_bytes() -> int:
    """What this process has given to the system to write, sockets included; ConfigError where it does not tell."""
    try:
        counters = IO_COUNTERS.read_text()
    except FileNotFoundError as error:
        raise ConfigError(f"bytes are counted by {IO_COUNTERS}, which only Linux has; run it there", "ranks") from error
    return int(counters.split("wchar: ")[1].split()[0])


class Recorder:
    """Owns a rank's record. CPU time and bytes of what lies inside a step and is not computing are set aside."""

    def __init__(self) -> None:
        self.record = Record()
        self._aside_s = 0.0
        self._aside_bytes = 0
        self._started: tuple[float, int] | None = None

    def begin_step(self) -> None:
        self._aside_s, self._aside_bytes = 0.0, 0
        self._started = time.thread_time(), written_bytes()

    def end_step(self) -> None:
        """Without a begin nothing is recorded: it was no forward."""
        if self._started is None:
            return
        (cpu_s, written), self._started = self._started, None
        self.record.compute_s.append(time.thread_time() - cpu_s - self._aside_s)
        self.record.tensor_bytes.append(written_bytes() - written - self._aside_bytes)

    @contextmanager
    def collective(self) -> Iterator[None]:
        cpu_s, started = time.thread_time(), time.perf_counter()
        yield
        self.record.call_s.append(time.perf_counter() - started)
        self._aside_s += time.thread_time() - cpu_s

    def send(self, send: Callable[[], None]) -> None:
        """Rank 0's part of the exchange of a plan."""
        cpu_s, written, started = time.thread_time(), written_bytes(), time.perf_counter()
        send()
        self.record.send_s.append(time.perf_counter() - started)
        self.record.plan_bytes.append(written_bytes() - written)
        self._aside_bytes += self.record.plan_bytes[-1]
        self._aside_s += time.thread_time() - cpu_s


class RecordedGroup:
    """A group whose collectives are timed."""

    def __init__(self, group: Group, recorder: Recorder) -> None:
        self._group = group
        self._recorder = recorder

    @property
    def part(self) -> Part:
        return self._group.part

    def all_reduce(self, tensor: Tensor) -> Tensor:
        with self._recorder.collective():
            return self._group.all_reduce(tensor)

    def all_gather(self, tensor: Tensor) -> Tensor:
        with self._recorder.collective():
            return self._group.all_gather(tensor)

    def all_to_all(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        with self._recorder.collective():
            return self._group.all_to_all(rows, sent, received)


class RecordedChannel(ControlChannel):
    """A channel whose plans are recorded; ``messages`` are those that were sent."""

    def __init__(self, timeout_s: float, recorder: Recorder) -> None:
        super().__init__(timeout_s)
        self._recorder = recorder
        self.messages: list[bytes] = []

    def send(self, message: bytes) -> None:
        if not message.startswith(PLAN):
            super().send(message)
            return
        self.messages.append(message)
        self._recorder.send(lambda: ControlChannel.send(self, message))

    def receive(self) -> memoryview:
        """A follower's step begins where it has the plan."""
        written = written_bytes()
        message = super().receive()
        if bytes(message[:1]) == PLAN:
            self._recorder.record.plan_bytes.append(written_bytes() - written)
            self._recorder.begin_step()
        return message


class RecordedExecutor:
    """Rank 0's steps."""

    def __init__(self, inner: Executor, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    def execute(self, plan: IterationPlan) -> StepResult:
        self._recorder.begin_step()
        result = self._inner.execute(plan)
        self._recorder.end_step()
        return result
