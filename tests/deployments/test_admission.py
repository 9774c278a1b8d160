"""deployments/admission.py: order, capacity, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.admission import MAX_RETRY_AFTER_S, AdmissionQueue, Entry, fits, retry_after_s
from engine.errors import OverloadedError


def entry(key: str, cost: int = 1, priority: int = 0, deadline: float = 100.0, arrived: float = 0.0) -> Entry:
    return Entry(key=key, cost=cost, priority=priority, deadline=deadline, arrived=arrived)


def test_starts_while_there_is_room_and_then_waits() -> None:
    queue = AdmissionQueue(capacity=2, max_depth=5)
    assert [queue.submit(entry(key)) for key in "abc"] == [True, True, False]
    assert queue.in_flight == 2
    assert queue.leave("a", 1.0) == ["c"]
    assert queue.leave("c", 2.0) == []


def test_priority_then_deadline_then_arrival() -> None:
    queue = AdmissionQueue(capacity=1, max_depth=9)
    queue.submit(entry("running"))
    queue.submit(entry("late", deadline=50, arrived=1))
    queue.submit(entry("early", deadline=50, arrived=0))
    queue.submit(entry("urgent", deadline=10, arrived=2))
    queue.submit(entry("important", priority=-1, arrived=3))
    order, last = [], "running"
    while started := queue.leave(last, 1.0):
        order += started
        last = started[0]
    assert order == ["important", "urgent", "early", "late"]


def test_a_large_request_is_neither_starved_nor_stuck() -> None:
    queue = AdmissionQueue(capacity=4, max_depth=9)
    queue.submit(entry("small", cost=1))
    assert not queue.submit(entry("large", cost=9))
    assert not queue.submit(entry("tiny", cost=1)), "nothing overtakes the first of the order"
    assert queue.leave("small", 1.0) == ["large"]
    assert queue.leave("large", 2.0) == ["tiny"]


def test_a_full_queue_refuses_with_a_hint() -> None:
    queue = AdmissionQueue(capacity=1, max_depth=1, mean_service_s=3.0)
    queue.submit(entry("runs"))
    queue.submit(entry("waits"))
    with pytest.raises(OverloadedError) as caught:
        queue.submit(entry("refused"))
    assert caught.value.retry_after_s == pytest.approx(6.0)
    assert "refused" not in queue.waiting


def test_leaving_is_idempotent_and_works_while_waiting() -> None:
    queue = AdmissionQueue(capacity=1, max_depth=5)
    queue.submit(entry("a"))
    queue.submit(entry("b"))
    assert queue.leave("b", 1.0) == []
    assert queue.leave("b", 1.0) == []
    assert queue.leave("a", 1.0) == []
    assert queue.in_flight == 0


def test_leases_of_lost_callers_expire() -> None:
    queue = AdmissionQueue(capacity=1, max_depth=5)
    queue.submit(entry("lost", deadline=10.0))
    queue.submit(entry("next", deadline=99.0))
    assert queue.expire(12.0, grace_s=5.0) == []
    assert queue.expire(15.1, grace_s=5.0) == ["next"]


def test_retry_hint_is_bounded() -> None:
    assert retry_after_s(1, 100, 0.01) == 1.0
    assert retry_after_s(1000, 1, 100.0) == MAX_RETRY_AFTER_S


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=40), st.integers(1, 6))
def test_capacity_holds_and_nothing_is_lost(steps: list[tuple[int, bool]], capacity: int) -> None:
    queue = AdmissionQueue(capacity=capacity, max_depth=1000)
    alive: set[str] = set()
    for number, (cost, leaves) in enumerate(steps):
        if leaves and queue.running:
            key = next(iter(queue.running))
            alive.discard(key)
            queue.leave(key, float(number))
        else:
            alive.add(str(number))
            queue.submit(entry(str(number), cost=cost, arrived=float(number)))
        assert queue.in_flight <= capacity or len(queue.running) == 1
        assert alive == set(queue.waiting) | set(queue.running)
        first = min(queue.waiting.values(), key=lambda one: one.order, default=None)
        assert first is None or not fits(queue.in_flight, first.cost, capacity), "the first could have started"
