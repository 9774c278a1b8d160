"""Who runs: order, queue limit, slots and pages, under random arrivals and departures."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.cache.block_manager import BlockManager
from engine.errors import InvalidRequestError, OverloadedError
from engine.outputs import Usage
from engine.scheduler import MAX_OVERTAKEN, Preemption, Scheduler, SchedulingRules
from engine.sequence import GenerationRequest, Sequence
from engine.strategy import Strategy

SLOTS, PAGES, PAGE_SIZE, MAX_LEN, QUEUE = 4, 12, 4, 16, 3


def sequence(
    arrival: int,
    canvas_len: int = 8,
    *,
    priority: int = 0,
    guided: bool = False,
    max_tokens: int = 1,
    deadline_s: float = math.inf,
) -> Sequence:
    strategy = Strategy(
        decoder="threshold",
        cache="none",
        block_length=4,
        decoder_params=None,
        cache_params=None,
        cfg_scale=1.0 if guided else 0.0,
    )
    return Sequence(
        request=GenerationRequest(request_id=str(arrival), prompt=[1], priority=priority),
        prompt_ids=[1],
        completion_ids=[0] * max_tokens,
        strategy=strategy,
        stop_ids=[],
        sampling_knobs={},
        canvas_len=canvas_len,
        arrival=arrival,
        deadline_s=deadline_s,
    )


def make(
    num_slots: int = SLOTS,
    num_pages: int = PAGES,
    queue: int = QUEUE,
    preemption: Preemption = "priority",
    aging_s: float = 0.0,
) -> tuple[Scheduler, BlockManager]:
    blocks = BlockManager(num_slots, num_pages, PAGE_SIZE, MAX_LEN)
    rules = SchedulingRules(max_queue_len=queue, preemption=preemption, aging_s=aging_s)
    return Scheduler(num_slots, blocks, rules), blocks


class Arrivals(RuleBasedStateMachine):
    """Random traffic against a sorted list."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler, self.blocks = make()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.overtaken: Counter[Sequence] = Counter()
        self.arrivals = 0

    @rule(
        canvas_len=st.integers(1, MAX_LEN),
        priority=st.integers(-1, 1),
        guided=st.booleans(),
        deadline_s=st.sampled_from([5.0, 7.0, math.inf]),
    )
    def add(self, canvas_len: int, priority: int, guided: bool, deadline_s: float) -> None:
        self.arrivals += 1
        new = sequence(self.arrivals, canvas_len, priority=priority, guided=guided, deadline_s=deadline_s)
        if len(self.waiting) >= QUEUE + self.scheduler.num_free_slots:
            with pytest.raises(OverloadedError):
                self.scheduler.add(new, 0.0)
            return
        self.scheduler.add(new, 0.0)
        self.wait(new)

    def wait(self, one: Sequence) -> None:
        self.waiting.append(one)
        self.waiting.sort(key=lambda one: (one.request.priority, one.deadline_s, one.arrival))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave_the_queue(self, data: st.DataObject) -> None:
        gone = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.scheduler.remove(gone)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        gone = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.scheduler.release(gone)
        assert (gone.slot, gone.guide_slot) == (-1, -1)

    @rule(forward=st.integers(0, 50))
    def admit(self, forward: int) -> None:
        for one, tables in self.scheduler.admit(0.0, forward):
            if one is not self.waiting[0]:
                self.overtaken[self.waiting[0]] += 1
            self.waiting.remove(one)
            self.running.append(one)
            assert len(tables) == one.num_slots
            assert one.slot >= 0
            assert (one.guide_slot >= 0) == (one.num_slots == 2)
            for memory, slot in zip(tables, (one.slot, one.guide_slot), strict=False):
                table = memory.pages
                assert table.tolist() == self.blocks.page_table[slot].tolist()
                assert (table >= 0).sum() == self.blocks.pages_for(one.canvas_len)
        assert not self.waiting or not self.fits(self.waiting[0]), "the first goes as soon as it fits"
        assert max(self.overtaken.values(), default=0) <= MAX_OVERTAKEN

    @precondition(lambda self: self.waiting)
    @rule()
    def preempt(self) -> None:
        victims, head = self.scheduler.victims(), self.waiting[0]
        for one in victims:
            assert one.request.priority > head.request.priority
            self.running.remove(one)
            self.scheduler.release(one)
            one.num_preemptions += 1
            assert one.num_preemptions <= 2
            self.scheduler.requeue(one, 0.0)
            self.wait(one)
        if victims:
            assert self.fits(head)
            assert self.waiting[0] is head
            self.admit(0)
            assert head in self.running

    def fits(self, one: Sequence) -> bool:
        pages = self.blocks.pages_for(one.canvas_len) * one.num_slots
        return one.num_slots <= self.scheduler.num_free_slots and pages <= self.blocks.num_free_pages

    @invariant()
    def slots_and_pages_are_owned_once(self) -> None:
        self.blocks.check()
        slots = [slot for one in self.running for slot in (one.slot, one.guide_slot) if slot >= 0]
        assert len(slots) == len(set(slots)) == SLOTS - self.scheduler.num_free_slots
        assert self.scheduler.num_waiting == len(self.waiting)


TestArrivals = Arrivals.TestCase


def test_priority_then_arrival() -> None:
    scheduler, _ = make(num_slots=4, num_pages=16)
    for arrival, priority in enumerate((1, 0, 1, -5)):
        scheduler.add(sequence(arrival, priority=priority), 0.0)
    assert [one.arrival for one, _ in scheduler.admit(0.0, 0)] == [3, 1, 0, 2]


def started(scheduler: Scheduler, forward: int = 0, now_s: float = 0.0) -> list[int]:
    return [one.arrival for one, _ in scheduler.admit(now_s, forward)]


def test_a_small_request_overtakes_only_what_it_does_not_delay() -> None:
    """12 pages: 8 are taken for 30 forwards, the head needs 8, so 4 are left beside it when it can start."""
    scheduler, _ = make(num_slots=8)
    running = sequence(0, canvas_len=16, guided=True, max_tokens=60)
    scheduler.add(running, 0.0)
    assert started(scheduler) == [0]
    scheduler.add(sequence(1, canvas_len=16, guided=True), 0.0)
    scheduler.add(sequence(2, canvas_len=8, max_tokens=100), 0.0)
    scheduler.add(sequence(3, canvas_len=8, max_tokens=100), 0.0)
    assert started(scheduler) == [2, 3], "beside the head, as long as they like"
    assert started(scheduler) == []
    scheduler.release(running)
    assert started(scheduler) == [1]


def test_predicted_work_says_who_is_out_in_time() -> None:
    scheduler, _ = make(num_slots=8, num_pages=8)
    scheduler.add(sequence(0, canvas_len=16, max_tokens=60), 0.0)
    assert started(scheduler) == [0]
    scheduler.add(sequence(1, canvas_len=16, guided=True), 0.0)
    scheduler.add(sequence(2, canvas_len=4, max_tokens=100), 0.0)
    scheduler.add(sequence(3, canvas_len=4, max_tokens=20), 0.0)
    assert scheduler.num_waiting == 3
    assert started(scheduler) == [3], "50 forwards are too long, 10 are not"
    scheduler.add(sequence(4, canvas_len=4, max_tokens=20), 0.0)
    assert started(scheduler, forward=25) == [], "the head is due at 30"


def test_a_request_is_overtaken_so_often_and_no_more() -> None:
    scheduler, _ = make(num_slots=64, num_pages=48, queue=200)
    scheduler.add(sequence(0, canvas_len=4, max_tokens=10_000), 0.0)
    scheduler.admit(0.0, 0)
    scheduler.add(sequence(1, canvas_len=192, priority=-1), 0.0)
    for arrival in range(2, 42):
        scheduler.add(sequence(arrival, canvas_len=4, max_tokens=4), 0.0)
    assert len(started(scheduler)) == MAX_OVERTAKEN


def test_of_one_priority_the_earliest_deadline_goes_first() -> None:
    scheduler, _ = make(num_pages=16, queue=9)
    for arrival, deadline_s in enumerate((math.inf, 9.0, 4.0, 9.0)):
        scheduler.add(sequence(arrival, deadline_s=deadline_s), 0.0)
    assert started(scheduler) == [2, 1, 3, 0]


def test_what_cannot_end_in_time_is_not_started() -> None:
    """20 tokens at 2 per forward and 1 s each: 10 s, of which half must be left."""
    scheduler, _ = make(queue=9)
    scheduler.took(1.0)
    for arrival, deadline_s in enumerate((3.0, 8.0, math.inf)):
        scheduler.add(sequence(arrival, max_tokens=20, deadline_s=deadline_s), 0.0)
    assert [one.arrival for one in scheduler.too_late(0.0)] == [0]
    assert started(scheduler) == [1, 2]
    assert scheduler.too_late(7.9) == []
    (late,) = scheduler.too_late(8.1)
    assert late.arrival == 1
    scheduler.release(late)
    assert scheduler.too_late(9.0) == []


def test_the_predicted_work_of_the_queue_is_what_waits() -> None:
    scheduler, _ = make(num_slots=1)
    scheduler.add(sequence(0), 0.0)
    scheduler.add(sequence(1, max_tokens=40), 0.0)
    both = scheduler.waiting_positions
    started(scheduler)
    assert 0 < scheduler.waiting_positions < both


def test_what_requests_cost_teaches_how_long_others_take() -> None:
    scheduler, _ = make()
    before = sequence(0, max_tokens=64)
    scheduler.add(before, 0.0)
    for _ in range(20):
        scheduler.finished(before, Usage(completion_tokens=64, forwards=8))
    after = sequence(1, max_tokens=64)
    scheduler.add(after, 0.0)
    assert after.predicted_steps < before.predicted_steps / 1.9


@pytest.mark.parametrize(
    ("how", "victims"), [("off", []), ("priority", [3]), ("deadline", [3])], ids=["off", "priority", "deadline"]
)
def test_a_request_may_take_the_place_of_the_least_worthy(how: Preemption, victims: list[int]) -> None:
    scheduler, _ = make(queue=9, preemption=how)
    for arrival, priority in enumerate((0, 5, 7, 7)):
        scheduler.add(sequence(arrival, priority=priority), 0.0)
    started(scheduler)
    scheduler.add(sequence(9, priority=2), 0.0)
    assert started(scheduler) == []
    assert [one.arrival for one in scheduler.victims()] == victims


def test_an_earlier_deadline_preempts_only_where_that_is_wanted() -> None:
    for how, victims in (("priority", []), ("deadline", [0])):
        scheduler, _ = make(num_slots=1, preemption=how)  # type: ignore[arg-type]
        scheduler.add(sequence(0, deadline_s=50.0), 0.0)
        started(scheduler)
        scheduler.add(sequence(1, deadline_s=20.0), 0.0)
        assert [one.arrival for one in scheduler.victims()] == victims


def test_nobody_is_preempted_in_vain() -> None:
    scheduler, _ = make(num_slots=4, num_pages=8)
    scheduler.add(sequence(0, canvas_len=16), 0.0)
    scheduler.add(sequence(1, canvas_len=16, priority=9), 0.0)
    started(scheduler)
    scheduler.add(sequence(2, canvas_len=16, guided=True, priority=3), 0.0)
    assert scheduler.victims() == [], "one of two places would not be enough"


def test_what_would_not_be_decided_alike_again_is_not_preempted() -> None:
    scheduler, _ = make(num_slots=1)
    drifting = sequence(0, priority=9)
    drifting.repeatable = False
    scheduler.add(drifting, 0.0)
    started(scheduler)
    scheduler.add(sequence(1), 0.0)
    assert scheduler.victims() == []


def test_guidance_takes_two_slots_or_waits() -> None:
    scheduler, _ = make(num_slots=2, num_pages=8)
    plain, guided = sequence(0), sequence(1, guided=True)
    scheduler.add(plain, 0.0)
    scheduler.add(guided, 0.0)
    assert [one for one, _ in scheduler.admit(0.0, 0)] == [plain]
    scheduler.release(plain)
    assert [one for one, _ in scheduler.admit(0.0, 0)] == [guided]
    assert {guided.slot, guided.guide_slot} == {0, 1}


def test_what_can_never_fit_is_refused_instead_of_blocking_the_queue() -> None:
    scheduler, _ = make(num_slots=2, num_pages=4)
    with pytest.raises(InvalidRequestError, match="K/V memory") as caught:
        scheduler.add(sequence(0, canvas_len=12, guided=True), 0.0)
    assert caught.value.param == "cfg_scale"
    assert scheduler.num_waiting == 0
    scheduler.add(sequence(1, canvas_len=8, guided=True), 0.0)
    assert len(scheduler.admit(0.0, 0)) == 1


def test_the_queue_counts_only_those_that_have_no_free_slot() -> None:
    scheduler, _ = make(num_slots=2, queue=0)
    scheduler.add(sequence(0), 0.0)
    scheduler.add(sequence(1), 0.0)
    with pytest.raises(OverloadedError, match="queue is full"):
        scheduler.add(sequence(2), 0.0)
