"""Who may start: the router's waiting queue of one model. Plain state and arithmetic, no clock, no asyncio.

Among waiting requests the first of this order goes next, and where it does not fit, nobody behind it does:

1. requests whose replica was lost, which have started before;
2. requests that have waited ``max_wait_s``, by arrival: nothing waits longer than those before it take;
3. the smaller priority number;
4. requests with little slack, by deadline, while their API key uses no more than its share of the places;
5. the API key that has had least work: start-time fair queueing (Goyal, Vin, Cheng 1996) over predicted positions.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from engine.errors import OverloadedError

MAX_RETRY_AFTER_S = 60.0
MAX_OWNERS = 1024
REFUSALS = ("queue_full", "key_share", "no_spare_place", "queue_timeout", "deadline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A request at the router.

    ``cost`` counts its sequences, ``work`` their predicted positions, ``service_s`` how long they should take;
    ``owner`` is the API key's name; ``is_spare``: it starts at once or not at all. Times are seconds of the router's
    monotonic clock.
    """

    key: str
    cost: int
    priority: int
    deadline: float
    arrived: float
    owner: str = ""
    work: float = 1.0
    service_s: float = 0.0
    resumed: bool = False
    is_spare: bool = False


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """``owner_share`` of the waiting places is what one named API key may hold; requests with less than
    ``urgent_slack_s`` to spare go by deadline."""

    max_depth: int = 256
    owner_share: float = 0.5
    max_wait_s: float = 60.0
    urgent_slack_s: float = 5.0


@dataclass(slots=True)
class Run:
    """A request that runs; ``cost`` shrinks when replicas are lost."""

    entry: Entry
    started: float
    cost: int


def fits(in_flight: int, cost: int, capacity: int) -> bool:
    """A request starts when its sequences fit, or alone, where it is larger than the whole capacity."""
    return in_flight + cost <= capacity or (in_flight == 0 and capacity > 0)


def retry_after_s(work: float, positions_per_s: float) -> float:
    """When so much work should be done, between 1 s and a minute."""
    seconds = work / positions_per_s if positions_per_s > 0 else math.inf
    return min(max(1.0, seconds), MAX_RETRY_AFTER_S)


@dataclass(slots=True)
class AdmissionQueue:
    """Owns which requests of one model wait and which run. At most ``capacity`` sequences run at once; ``refused``
    counts those that got no place, by reason."""

    limits: QueueLimits = field(default_factory=QueueLimits)
    capacity: int = 0
    waiting: dict[str, Entry] = field(default_factory=dict)
    running: dict[str, Run] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(REFUSALS, 0)))
    _tags: dict[str, float] = field(default_factory=dict)
    _served: dict[str, float] = field(default_factory=dict)
    _virtual: float = 0.0

    @property
    def in_flight(self) -> int:
        """Sequences that run."""
        return sum(run.cost for run in self.running.values())

    @property
    def work(self) -> float:
        """Predicted positions of all that waits and runs."""
        waiting = sum(entry.work for entry in self.waiting.values())
        return waiting + sum(run.entry.work for run in self.running.values())

    def submit(self, entry: Entry, positions_per_s: float) -> list[str]:
        """Take a request; returns the keys that start now, perhaps this one. OverloadedError: no place to wait."""
        if not entry.resumed:
            self._check_room(entry, positions_per_s)
        if entry.is_spare and (self.waiting or not fits(self.in_flight, entry.cost, self.capacity)):
            self.refused["no_spare_place"] += 1
            raise OverloadedError("No place is free for what may not wait.")
        self.waiting[entry.key] = entry
        tag = max(self._virtual, self._served.get(entry.owner, 0.0))
        self._tags[entry.key] = tag
        self._served[entry.owner] = tag + entry.work
        return self.start(entry.arrived)

    def leave(self, key: str, now: float, work: float | None = None) -> list[str]:
        """Forget a request, whether it runs or waits; returns the keys that may start now. Unknown keys are no-ops.

        ``work`` is what it took; its API key is charged for that instead of the prediction.
        """
        if (entry := self.waiting.pop(key, None)) is not None:
            del self._tags[key]
            self._charge(entry, 0.0)
        elif (run := self.running.pop(key, None)) is not None and work is not None:
            self._charge(run.entry, work)
        return self.start(now)

    def lose(self, key: str, cost: int) -> None:
        """So many sequences of a running request have lost their replica and take no place any more."""
        if (run := self.running.get(key)) is not None:
            run.cost = max(run.cost - cost, 0)

    def expire(self, now: float, grace_s: float) -> list[str]:
        """Forget runs whose deadline passed ``grace_s`` ago (their ingress is gone); returns their keys."""
        lost = [key for key, run in self.running.items() if run.entry.deadline + grace_s < now]
        for key in lost:
            del self.running[key]
        return lost

    def start(self, now: float) -> list[str]:
        """Start what fits; returns its keys in the order of their starts."""
        started: list[str] = []
        in_flight = self.in_flight
        costs = Counter[str]()
        for run in self.running.values():
            costs[run.entry.owner] += run.cost
        while self.waiting:
            entry = self._first(now, costs)
            if not fits(in_flight, entry.cost, self.capacity):
                break
            del self.waiting[entry.key]
            self._virtual = max(self._virtual, self._tags.pop(entry.key))
            self.running[entry.key] = Run(entry, now, entry.cost)
            in_flight += entry.cost
            costs[entry.owner] += entry.cost
            started.append(entry.key)
        self._forget_idle_owners()
        return started

    def _first(self, now: float, costs: Counter[str]) -> Entry:
        """The first of the order that is described above. ``costs``: running sequences per API key."""
        owners = {entry.owner for entry in self.waiting.values()} | {owner for owner, cost in costs.items() if cost}
        share = self.capacity / len(owners)

        def order(entry: Entry) -> tuple[bool, bool, float, int, float, float, float, str]:
            overdue = now - entry.arrived >= self.limits.max_wait_s
            within_share = costs[entry.owner] == 0 or costs[entry.owner] + entry.cost <= share
            hurried = within_share and entry.deadline - now - entry.service_s < self.limits.urgent_slack_s
            return (
                not entry.resumed,
                not overdue,
                entry.arrived if overdue else 0.0,
                entry.priority,
                entry.deadline if hurried else math.inf,
                self._tags[entry.key],
                entry.arrived,
                entry.key,
            )

        return min(self.waiting.values(), key=order)

    def _check_room(self, entry: Entry, positions_per_s: float) -> None:
        if self._starts_at_once(entry):
            return
        limits = self.limits
        hint = retry_after_s(self.work + entry.work, positions_per_s)
        if len(self.waiting) >= limits.max_depth:
            self.refused["queue_full"] += 1
            raise OverloadedError(f"{len(self.waiting)} requests wait already; try again later.", None, hint)
        held = sum(waiting.owner == entry.owner for waiting in self.waiting.values())
        if entry.owner and held >= max(limits.owner_share * limits.max_depth, 1):
            self.refused["key_share"] += 1
            raise OverloadedError(
                f"{held} requests of API key {entry.owner!r} wait already; try again later.", None, hint
            )

    def _starts_at_once(self, entry: Entry) -> bool:
        return not self.waiting and fits(self.in_flight, entry.cost, self.capacity)

    def _charge(self, entry: Entry, work: float) -> None:
        """Correct what an API key has been charged for ``entry``."""
        if entry.owner in self._served:
            self._served[entry.owner] = max(self._served[entry.owner] + work - entry.work, self._virtual)

    def _forget_idle_owners(self) -> None:
        """An API key whose work is behind the virtual time is as one that was never seen."""
        if not self.waiting and not self.running:
            self._served.clear()
            self._virtual = 0.0
        elif len(self._served) > MAX_OWNERS:
            self._served = {owner: served for owner, served in self._served.items() if served > self._virtual}
