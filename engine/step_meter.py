"""What an engine measures of its own steps: distributions with fixed buckets, cheap enough for every step."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STEP_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
WAIT_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
BATCH_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
BATCH_POSITIONS = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0)


@dataclass(frozen=True, slots=True)
class Distribution:
    """``counts[i]`` values lie in ``(bounds[i - 1], bounds[i]]``, the last count is that of the values above all
    bounds; ``total`` is the sum of the values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Tally:
    """Owns a distribution that grows. One thread adds; a snapshot that another one takes may lack the last value."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def snapshot(self) -> Distribution:
        return Distribution(self._bounds, tuple(self._counts), self._total)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReadings:
    """A snapshot of a :class:`StepMeter`. ``phase_s`` are seconds per step by phase, ``wait_s`` those that admitted
    sequences had waited for a slot; ``rows`` and ``positions`` are the sizes of forwards. ``ended`` counts sequences
    by their finish reason ("abort": the caller dropped it,
    "deadline": its time had passed)."""

    phase_s: Mapping[str, Distribution]
    wait_s: Distribution
    rows: Distribution
    positions: Distribution
    ended: Mapping[str, int]


class StepMeter:
    """Owns the measurements of one engine.

    A step has three phases: ``forward`` is the network, ``decide`` what follows it up to the host's copy of the
    decisions (output head, decoders, for a sharded replica its communication), ``host`` all the rest: admission,
    planning, taking in the result.
    """

    def __init__(self) -> None:
        self._host, self._forward, self._decide = (Tally(STEP_SECONDS) for _ in range(3))
        self._wait = Tally(WAIT_SECONDS)
        self._rows, self._positions = Tally(BATCH_ROWS), Tally(BATCH_POSITIONS)
        self._ended: dict[str, int] = {"stop": 0, "length": 0, "abort": 0, "deadline": 0}

    def stepped(self, step_s: float, execute_s: float, forward_s: float | None) -> None:
        """A step took ``step_s``, of that its executor ``execute_s`` and the network ``forward_s`` (None: nothing was
        decided, all of the executor's time was the network's)."""
        self._host.add(max(step_s - execute_s, 0.0))
        self._forward.add(execute_s if forward_s is None else forward_s)
        self._decide.add(0.0 if forward_s is None else max(execute_s - forward_s, 0.0))

    def forwarded(self, num_rows: int, num_positions: int) -> None:
        """A forward had so many rows and query positions."""
        self._rows.add(num_rows)
        self._positions.add(num_positions)

    def waited(self, seconds: float) -> None:
        """A sequence got its slot."""
        self._wait.add(seconds)

    def ended(self, reason: str) -> None:
        """A sequence left the engine."""
        self._ended[reason] += 1

    def readings(self) -> StepReadings:
        return StepReadings(
            phase_s={
                "host": self._host.snapshot(),
                "forward": self._forward.snapshot(),
                "decide": self._decide.snapshot(),
            },
            wait_s=self._wait.snapshot(),
            rows=self._rows.snapshot(),
            positions=self._positions.snapshot(),
            ended=dict(self._ended),
        )
