"""The order of waiting sequences.

Smaller priority numbers first; among equal ones the earliest deadline (those without one last), then arrival. A
request that waits rises: each ``aging_s`` lifts it by twice as many priorities as the time before (1, 2, 4 ...), so
that after 33 of them it is before everything that may come: nothing starves, whatever the others ask for. No operation
looks at all that waits: each takes O(log n), a removal O(1).
"""

from __future__ import annotations

import heapq
import itertools
import math

from engine.sequence import Sequence

MAX_LIFTS = 33
"""Lifts after which every priority number of 32 bits is overtaken."""

_SPARE_ENTRIES = 64

_Entry = tuple[int, float, int, int, Sequence]
"""Priority as it has risen, deadline, arrival, a serial number, and whose it is."""


class WaitingQueue:
    """Owns the waiting sequences. ``aging_s`` 0: nothing rises. Times are seconds of one monotonic clock.

    Heaps keep entries of sequences that have left or risen until they come up; ``_entry`` says which one counts.
    """

    def __init__(self, aging_s: float) -> None:
        self._aging_s = aging_s
        self._serial = itertools.count()
        self._entry: dict[Sequence, _Entry] = {}
        self._order: list[_Entry] = []
        self._lifts: list[tuple[float, int, int, Sequence]] = []
        self._last_calls: list[tuple[float, int, Sequence]] = []
        self._latest_start_s: dict[Sequence, float] = {}

    def __len__(self) -> int:
        return len(self._entry)

    def push(self, sequence: Sequence, now_s: float, latest_start_s: float = math.inf) -> None:
        """Add a sequence; after ``latest_start_s`` it is of no use to start it."""
        serial = self._enter(sequence, sequence.request.priority)
        if self._aging_s > 0:
            heapq.heappush(self._lifts, (now_s + self._aging_s, serial, 0, sequence))
        if latest_start_s < math.inf:
            heapq.heappush(self._last_calls, (latest_start_s, serial, sequence))
            self._latest_start_s[sequence] = latest_start_s

    def remove(self, sequence: Sequence) -> None:
        """Forget a waiting sequence."""
        del self._entry[sequence]
        self._latest_start_s.pop(sequence, None)
        if len(self._order) > 2 * len(self._entry) + _SPARE_ENTRIES:
            self._compact()

    def first(self) -> Sequence | None:
        """Who goes next, None when nobody waits."""
        while self._order and not self._counts(self._order[0]):
            heapq.heappop(self._order)
        return self._order[0][-1] if self._order else None

    def after_first(self, limit: int) -> list[Sequence]:
        """Up to ``limit`` sequences that follow the first, in order."""
        taken: list[_Entry] = []
        while self._order and len(taken) <= limit:
            entry = heapq.heappop(self._order)
            if self._counts(entry):
                taken.append(entry)
        for entry in taken:
            heapq.heappush(self._order, entry)
        return [entry[-1] for entry in taken[1:]]

    def rise(self, now_s: float) -> bool:
        """Lift those whose time has come; returns whether there were any."""
        lifted = False
        while self._lifts and self._lifts[0][0] <= now_s:
            due_s, serial, lifts, sequence = heapq.heappop(self._lifts)
            entry = self._entry.get(sequence)
            if entry is None or entry[3] != serial:
                continue
            lifted = True
            serial = self._enter(sequence, entry[0] - (1 << lifts))
            if lifts + 1 < MAX_LIFTS:
                heapq.heappush(self._lifts, (due_s + self._aging_s, serial, lifts + 1, sequence))
        return lifted

    def too_late(self, now_s: float) -> list[Sequence]:
        """Take out the sequences whose latest start has passed."""
        late = []
        while self._last_calls and self._last_calls[0][0] < now_s:
            latest_start_s, _, sequence = heapq.heappop(self._last_calls)
            if self._latest_start_s.get(sequence) == latest_start_s:
                self.remove(sequence)
                late.append(sequence)
        return late

    def _enter(self, sequence: Sequence, priority: int) -> int:
        serial = next(self._serial)
        entry = (priority, sequence.deadline_s, sequence.arrival, serial, sequence)
        self._entry[sequence] = entry
        heapq.heappush(self._order, entry)
        return serial

    def _counts(self, entry: _Entry) -> bool:
        return self._entry.get(entry[-1]) is entry

    def _compact(self) -> None:
        """Drop what has left, so that memory follows the queue."""
        self._order = list(self._entry.values())
        heapq.heapify(self._order)
        self._lifts = [lift for lift in self._lifts if lift[3] in self._entry]
        heapq.heapify(self._lifts)
        self._last_calls = [call for call in self._last_calls if self._latest_start_s.get(call[2]) == call[0]]
        heapq.heapify(self._last_calls)
