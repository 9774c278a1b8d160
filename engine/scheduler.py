"""Who runs: the waiting requests, the slots and the pages."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import Literal

from engine.cache.block_manager import Allocation, BlockManager
from engine.errors import InvalidRequestError, OverloadedError
from engine.outputs import Usage
from engine.sequence import Sequence
from engine.waiting import WaitingQueue
from engine.work import WorkModel, WorkShape

Preemption = Literal["off", "priority", "deadline"]

LOOK_AHEAD = 16
"""So many requests behind one that does not fit are tried in its place."""

MAX_OVERTAKEN = 16
"""So often a request is overtaken by others that fit, at most."""

OPTIMISM = 0.5
"""Share of its predicted time that a request is given up for lack of: predictions err."""

TIME_SMOOTHING = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingRules:
    """What the operator decides of the order; see EngineConfig."""

    max_queue_len: int = 1024
    aging_s: float = 10.0
    preemption: Preemption = "priority"
    max_preemptions: int = 2


class Scheduler:
    """Owns the waiting queue and the free slots, asks the block manager for pages, and learns what requests cost.

    The first of the queue (:mod:`engine.waiting`) goes next. Where it does not fit, first running requests that are
    worth less may be preempted for it. Else one of the next ``LOOK_AHEAD`` may overtake it: one that fits and, as far
    as can be predicted, does not delay it: it is out before enough others are, or takes only what is left beside it.
    A request is overtaken at most ``MAX_OVERTAKEN`` times, so wrong predictions delay it by no more than those.
    Predictions count forwards of the engine.
    """

    def __init__(self, num_slots: int, blocks: BlockManager, rules: SchedulingRules | None = None) -> None:
        self._rules = rules or SchedulingRules()
        self._blocks = blocks
        self._free_slots = list(range(num_slots - 1, -1, -1))
        self._waiting = WaitingQueue(self._rules.aging_s)
        self._ends_at: dict[Sequence, float] = {}
        self._deadlines: list[tuple[float, int, Sequence]] = []
        self._overtaken: dict[Sequence, int] = {}
        self._work = WorkModel()
        self._forward_s = 0.0
        self._waiting_positions = 0
        self._stuck = False
        self._is_settled = False

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_free_slots(self) -> int:
        return len(self._free_slots)

    @property
    def waiting_positions(self) -> int:
        """Query positions that those who wait are predicted to feed to the network."""
        return self._waiting_positions

    def add(self, sequence: Sequence, now_s: float) -> None:
        """Queue a request; OverloadedError when the queue is full, InvalidRequestError when it could never run."""
        pages = self._pages(sequence)
        if pages > self._blocks.num_pages:
            raise InvalidRequestError(
                f"the request needs {pages * self._blocks.page_size} positions of K/V memory, and the server has "
                f"{self._blocks.num_pages * self._blocks.page_size}; guidance takes them twice",
                "cfg_scale" if sequence.num_slots == 2 else "max_tokens",
            )
        if len(self._waiting) >= self._rules.max_queue_len + self.num_free_slots:
            raise OverloadedError(
                f"the engine's queue is full ({self._rules.max_queue_len} requests); try again later", "max_queue_len"
            )
        self.requeue(sequence, now_s)

    def requeue(self, sequence: Sequence, now_s: float) -> None:
        """Queue a request whatever waits already: one that was preempted."""
        done, shape = sequence.num_emitted, shape_of(sequence)
        left = max(shape.max_tokens - done, 1)
        shape = replace(shape, prompt_tokens=shape.prompt_tokens + done, max_tokens=left)
        sequence.predicted_steps = self._work.predict_steps(shape)
        sequence.predicted_positions = int(self._work.predict(shape))
        shortest_s = OPTIMISM * sequence.predicted_steps * self._forward_s
        self._waiting.push(sequence, now_s, sequence.deadline_s - shortest_s)
        self._waiting_positions += sequence.predicted_positions
        self._stuck = False

    def remove(self, sequence: Sequence) -> None:
        """Take a waiting request out of the queue."""
        self._waiting.remove(sequence)
        self._left(sequence)

    def too_late(self, now_s: float) -> list[Sequence]:
        """Take out the waiting requests that cannot end by their deadline any more; returns them, and running ones
        whose deadline has passed, which the caller has to :meth:`release`."""
        late = self._waiting.too_late(now_s)
        for sequence in late:
            self._left(sequence)
        while self._deadlines and self._deadlines[0][0] < now_s:
            sequence = heapq.heappop(self._deadlines)[-1]
            if sequence in self._ends_at and sequence not in late:
                late.append(sequence)
        return late

    def admit(self, now_s: float, forward: int) -> list[tuple[Sequence, list[Allocation]]]:
        """Give slots and pages to as many requests as fit; returns them with what each slot got. ``forward`` counts
        those of the engine."""
        if self._waiting.rise(now_s):
            self._stuck = False
        self._is_settled = self._stuck
        admitted = []
        while not self._stuck and (chosen := self._choose(forward)) is not None:
            admitted.append((chosen, self._start(chosen, forward)))
        self._stuck = True
        return admitted

    def victims(self) -> list[Sequence]:
        """Running requests to preempt so that the first of the queue fits; none where that is not allowed, would not be
        enough, or where nothing has changed since the last time. The caller has to :meth:`release` and :meth:`requeue`
        them."""
        head = self._waiting.first()
        if head is None or self._is_settled or self._rules.preemption == "off":
            return []
        rank = self._rank(head)
        able = [one for one in self._ends_at if self._may_be_preempted(one) and self._rank(one) > rank]
        able.sort(key=lambda one: (self._rank(one), one.arrival), reverse=True)
        slots, pages = head.num_slots - len(self._free_slots), self._pages(head) - self._blocks.num_free_pages
        chosen: list[Sequence] = []
        for one in able:
            if slots <= 0 and pages <= 0:
                break
            slots, pages = slots - one.num_slots, pages - self._pages(one)
            chosen.append(one)
        return chosen if slots <= 0 and pages <= 0 else []

    def release(self, sequence: Sequence) -> None:
        """Take back the slots and pages of a running request."""
        for slot in (sequence.slot, sequence.guide_slot):
            if slot >= 0:
                self._blocks.release(slot)
                self._free_slots.append(slot)
        sequence.slot = sequence.guide_slot = -1
        del self._ends_at[sequence]
        self._stuck = False

    def finished(self, sequence: Sequence, usage: Usage) -> None:
        """A request has run to its end: what it took teaches what others of its strategy will take."""
        self._work.learn(shape_of(sequence), usage)

    def took(self, forward_s: float) -> None:
        """A forward with all around it took so long."""
        known = self._forward_s or forward_s
        self._forward_s = known + TIME_SMOOTHING * (forward_s - known)

    def _choose(self, forward: int) -> Sequence | None:
        """The first that may start: the head of the queue, or one that overtakes it."""
        head = self._waiting.first()
        if head is None or self._fits(head):
            return head
        if not self._free_slots or self._overtaken.get(head, 0) >= MAX_OVERTAKEN:
            return None
        room = self._room_beside(head, forward)
        for other in self._waiting.after_first(LOOK_AHEAD):
            early = forward + other.predicted_steps <= room.at
            spare = other.num_slots <= room.num_slots and self._pages(other) <= room.num_pages
            if self._fits(other) and (early or spare):
                self._overtaken[head] = self._overtaken.get(head, 0) + 1
                return other
        return None

    def _room_beside(self, head: Sequence, forward: int) -> _Room:
        """When enough running requests should have ended for ``head``, and what will then be left beside it."""
        slots, pages = len(self._free_slots) - head.num_slots, self._blocks.num_free_pages - self._pages(head)
        at = float(forward)
        for sequence, ends_at in sorted(self._ends_at.items(), key=lambda item: item[1]):
            if slots >= 0 and pages >= 0:
                break
            slots, pages, at = slots + sequence.num_slots, pages + self._pages(sequence), ends_at
        return _Room(at, slots, pages)

    def _start(self, sequence: Sequence, forward: int) -> list[Allocation]:
        self._waiting.remove(sequence)
        self._left(sequence)
        self._ends_at[sequence] = forward + sequence.predicted_steps
        if sequence.deadline_s < math.inf:
            heapq.heappush(self._deadlines, (sequence.deadline_s, sequence.arrival, sequence))
        sequence.slot = self._free_slots.pop()
        slots = [sequence.slot]
        if sequence.num_slots == 2:
            sequence.guide_slot = self._free_slots.pop()
            slots.append(sequence.guide_slot)
        keys, block_length = sequence.prefix_keys, sequence.strategy.block_length
        return [self._blocks.allocate(slot, sequence.canvas_len, keys, block_length) for slot in slots]

    def _left(self, sequence: Sequence) -> None:
        """A request waits no longer."""
        self._waiting_positions -= sequence.predicted_positions
        self._overtaken.pop(sequence, None)
        self._stuck = False

    def _rank(self, sequence: Sequence) -> tuple[int, float]:
        """What a request is worth when others are preempted for it; smaller is more."""
        return sequence.request.priority, sequence.deadline_s if self._rules.preemption == "deadline" else 0.0

    def _may_be_preempted(self, sequence: Sequence) -> bool:
        return sequence.repeatable and sequence.num_preemptions < self._rules.max_preemptions

    def _fits(self, sequence: Sequence) -> bool:
        return sequence.num_slots <= len(self._free_slots) and self._pages(sequence) <= self._blocks.num_free_pages

    def _pages(self, sequence: Sequence) -> int:
        return self._blocks.pages_for(sequence.canvas_len) * sequence.num_slots


@dataclass(frozen=True, slots=True)
class _Room:
    """Slots and pages beside a request that does not fit yet, from forward ``at`` on."""

    at: float
    num_slots: int
    num_pages: int


def shape_of(sequence: Sequence) -> WorkShape:
    """What the predicted work of a request depends on."""
    strategy = sequence.strategy
    knobs = strategy.decoder_params
    return WorkShape(
        prompt_tokens=len(sequence.prompt_ids),
        max_tokens=len(sequence.completion_ids),
        block_length=strategy.block_length,
        cache=strategy.cache,
        strategy=f"{strategy.decoder}/{strategy.cache}/{strategy.block_length}/{knobs}",
    )
