"""Who may start: the router's waiting queue of one model. Plain state and arithmetic, no clock, no asyncio."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.errors import OverloadedError

MAX_RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A request at the router. ``cost`` counts its sequences; times are seconds of the router's monotonic clock."""

    key: str
    cost: int
    priority: int
    deadline: float
    arrived: float

    @property
    def order(self) -> tuple[int, float, float, str]:
        """Smaller goes first: priority, then the earlier deadline, then the earlier arrival."""
        return (self.priority, self.deadline, self.arrived, self.key)


def fits(in_flight: int, cost: int, capacity: int) -> bool:
    """A request starts when its sequences fit, or alone, where it is larger than the whole capacity."""
    return in_flight == 0 or in_flight + cost <= capacity


def retry_after_s(waiting_cost: int, capacity: int, mean_service_s: float) -> float:
    """When a queue of ``waiting_cost`` sequences should have drained, between 1 s and a minute."""
    return min(max(1.0, waiting_cost / max(capacity, 1) * mean_service_s), MAX_RETRY_AFTER_S)


@dataclass(slots=True)
class AdmissionQueue:
    """Owns which requests of one model wait and which run.

    At most ``capacity`` sequences run at once and at most ``max_depth`` requests wait. The first of the order that
    does not fit blocks those behind it, so that large requests are not starved.
    """

    capacity: int
    max_depth: int
    mean_service_s: float = 1.0
    waiting: dict[str, Entry] = field(default_factory=dict)
    running: dict[str, tuple[Entry, float]] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        """Sequences that run."""
        return sum(entry.cost for entry, _ in self.running.values())

    def submit(self, entry: Entry) -> bool:
        """True: it runs now; False: it waits, and a later ``leave`` or ``expire`` names it. OverloadedError: full."""
        if not self.waiting and fits(self.in_flight, entry.cost, self.capacity):
            self.running[entry.key] = (entry, entry.arrived)
            return True
        if len(self.waiting) >= self.max_depth:
            cost = sum(waiting.cost for waiting in self.waiting.values())
            hint = retry_after_s(cost + entry.cost, self.capacity, self.mean_service_s)
            raise OverloadedError(f"{len(self.waiting)} requests wait already; try again later.", None, hint)
        self.waiting[entry.key] = entry
        return False

    def leave(self, key: str, now: float) -> list[str]:
        """Forget a request, whether it runs or waits; returns the keys that may start now. Unknown keys are no-ops."""
        self.waiting.pop(key, None)
        if (run := self.running.pop(key, None)) is not None:
            self.mean_service_s += 0.2 * (now - run[1] - self.mean_service_s)
        return self._start(now)

    def expire(self, now: float, grace_s: float) -> list[str]:
        """Forget runs whose deadline passed ``grace_s`` ago (their ingress is gone); returns what may start now."""
        for key, (entry, _) in list(self.running.items()):
            if entry.deadline + grace_s < now:
                del self.running[key]
        return self._start(now)

    def _start(self, now: float) -> list[str]:
        started: list[str] = []
        for entry in sorted(self.waiting.values(), key=lambda waiting: waiting.order):
            if not fits(self.in_flight, entry.cost, self.capacity):
                break
            del self.waiting[entry.key]
            self.running[entry.key] = (entry, now)
            started.append(entry.key)
        return started
