"""deployments/admission.py: order, capacity, bounds, fairness."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.admission import MAX_RETRY_AFTER_S, AdmissionQueue, Entry, QueueLimits, retry_after_s
from engine.errors import OverloadedError


def entry(
    key: str, cost: int = 1, priority: int = 0, deadline: float = 1e6, arrived: float = 0.0, **more: Any
) -> Entry:
    return Entry(key=key, cost=cost, priority=priority, deadline=deadline, arrived=arrived, **more)


def queue_of(capacity: int, **limits: Any) -> AdmissionQueue:
    return AdmissionQueue(QueueLimits(**limits), capacity)


def drain(queue: AdmissionQueue, now: float = 1.0) -> list[str]:
    """The order of starts when one request after the other leaves."""
    order: list[str] = []
    while queue.running:
        order += queue.leave(next(iter(queue.running)), now)
    return order


def test_starts_while_there_is_room_and_then_waits() -> None:
    queue = queue_of(2)
    assert [queue.submit(entry(key), 1.0) for key in "abc"] == [["a"], ["b"], []]
    assert queue.in_flight == 2
    assert queue.leave("a", 1.0) == ["c"]
    assert queue.leave("c", 2.0) == []


def test_what_may_not_wait_starts_at_once_or_not_at_all() -> None:
    queue = queue_of(2)
    assert queue.submit(entry("spare", is_spare=True), 1.0) == ["spare"]
    with pytest.raises(OverloadedError):
        queue.submit(entry("large", cost=2, is_spare=True), 1.0)
    queue.submit(entry("running"), 1.0)
    queue.submit(entry("waiting"), 1.0)
    with pytest.raises(OverloadedError):
        queue.submit(entry("behind", is_spare=True), 1.0)
    assert set(queue.waiting) == {"waiting"}


def test_refusals_are_counted_by_reason() -> None:
    queue = queue_of(0, max_depth=2, owner_share=0.5)
    queue.submit(entry("a", owner="one"), 1.0)
    for key, owner in (("b", "one"), ("c", "two"), ("d", "three")):
        with contextlib.suppress(OverloadedError):
            queue.submit(entry(key, owner=owner), 1.0)
    assert (queue.refused["key_share"], queue.refused["queue_full"]) == (1, 1)


def test_nothing_starts_without_a_replica() -> None:
    queue = queue_of(0)
    assert queue.submit(entry("large", cost=9), 0.0) == []
    queue.capacity = 4
    assert queue.start(1.0) == ["large"], "alone, although it is larger than the capacity"


def test_priority_then_work_then_arrival() -> None:
    queue = queue_of(1)
    queue.submit(entry("running"), 1.0)
    queue.submit(entry("late", arrived=1), 1.0)
    queue.submit(entry("later", arrived=2), 1.0)
    queue.submit(entry("important", priority=-1, arrived=3), 1.0)
    assert drain(queue, 4.0) == ["important", "late", "later"]


def test_little_slack_goes_by_deadline() -> None:
    queue = queue_of(1, urgent_slack_s=5.0)
    queue.submit(entry("running"), 1.0)
    queue.submit(entry("first"), 1.0)
    queue.submit(entry("soon", deadline=20.0, service_s=15.0, owner="a"), 1.0)
    queue.submit(entry("sooner", deadline=4.0, owner="b"), 1.0)
    queue.submit(entry("relaxed", deadline=20.0, owner="c"), 1.0)
    assert drain(queue, 1.0)[:2] == ["sooner", "soon"]


def test_deadlines_do_not_buy_more_than_a_fair_share() -> None:
    queue = queue_of(4)
    for number in range(4):
        queue.submit(entry(f"pushy{number}", owner="pushy", deadline=2.0), 1.0)
    for number in range(4, 8):
        queue.submit(entry(f"pushy{number}", owner="pushy", deadline=2.0), 1.0)
    queue.submit(entry("modest", owner="modest"), 1.0)
    assert queue.leave("pushy0", 1.0) == ["modest"]


def test_keys_share_by_work_not_by_requests() -> None:
    """One key sends long requests, the other four times as many short ones: both get half of the work."""
    queue = queue_of(1, max_depth=1000, owner_share=1.0)
    queue.submit(entry("running", owner="nobody"), 1.0)
    for number in range(40):
        queue.submit(entry(f"long{number}", owner="long", work=400.0), 1.0)
    for number in range(160):
        queue.submit(entry(f"short{number}", owner="short", work=100.0), 1.0)
    firsts = Counter(key[:4] for key in drain(queue)[:100])
    assert 3.5 <= firsts["shor"] / firsts["long"] <= 4.5


def test_keys_are_charged_for_what_it_took() -> None:
    queue = queue_of(1)
    queue.submit(entry("dear0", owner="dear", work=10.0), 1.0)
    queue.submit(entry("running", owner="x", work=10.0), 1.0)
    queue.leave("dear0", 1.0, work=500.0)
    queue.submit(entry("dear1", owner="dear", work=10.0), 1.0)
    queue.submit(entry("cheap1", owner="cheap", work=10.0, arrived=1.0), 1.0)
    assert queue.leave("running", 3.0) == ["cheap1"]


def test_an_empty_queue_forgets_who_has_had_what() -> None:
    queue = queue_of(1)
    queue.submit(entry("dear0", owner="dear", work=10.0), 1.0)
    queue.leave("dear0", 1.0, work=500.0)
    queue.submit(entry("running", owner="x"), 1.0)
    queue.submit(entry("dear1", owner="dear"), 1.0)
    queue.submit(entry("cheap1", owner="cheap", arrived=1.0), 1.0)
    assert queue.leave("running", 3.0) == ["dear1"]


def test_waiting_long_enough_beats_every_rank() -> None:
    queue = queue_of(1, max_wait_s=60.0)
    queue.submit(entry("running"), 1.0)
    queue.submit(entry("patient", priority=9, owner="greedy", work=1e9), 1.0)
    for number in range(5):
        queue.submit(entry(f"important{number}", priority=-9, arrived=50.0, deadline=70.0), 1.0)
    assert queue.leave("running", 59.0) == ["important0"]
    assert queue.leave("important0", 60.0) == ["patient"]


def test_a_large_request_is_neither_starved_nor_stuck() -> None:
    queue = queue_of(4)
    queue.submit(entry("small", cost=1), 1.0)
    assert queue.submit(entry("large", cost=9), 1.0) == []
    assert queue.submit(entry("tiny", cost=1, arrived=1.0), 1.0) == [], "nothing overtakes the first of the order"
    assert queue.leave("small", 1.0) == ["large"]
    assert queue.leave("large", 2.0) == ["tiny"]


def test_lost_sequences_go_first_and_are_never_refused() -> None:
    queue = queue_of(2, max_depth=1)
    queue.submit(entry("job", cost=2), 1.0)
    queue.submit(entry("waits", priority=-9), 1.0)
    queue.capacity = 1
    queue.lose("job", 1)
    assert queue.in_flight == 1
    assert queue.submit(entry("job~1", resumed=True), 1.0) == []
    assert queue.leave("job", 1.0) == ["job~1"]


def test_a_full_queue_refuses_with_a_hint() -> None:
    queue = queue_of(1, max_depth=1)
    queue.submit(entry("runs", work=100.0), 50.0)
    queue.submit(entry("waits", work=100.0), 50.0)
    with pytest.raises(OverloadedError) as caught:
        queue.submit(entry("refused", work=100.0), 50.0)
    assert caught.value.retry_after_s == pytest.approx(6.0)
    assert "refused" not in queue.waiting


def test_a_key_holds_its_share_of_the_waiting_places_only() -> None:
    queue = queue_of(1, max_depth=4, owner_share=0.5)
    queue.submit(entry("runs", owner="a"), 1.0)
    queue.submit(entry("w1", owner="a"), 1.0)
    queue.submit(entry("w2", owner="a"), 1.0)
    with pytest.raises(OverloadedError, match="API key 'a'"):
        queue.submit(entry("w3", owner="a"), 1.0)
    queue.submit(entry("w4", owner="b"), 1.0)
    queue.submit(entry("anonymous", owner=""), 1.0)


def test_leaving_is_idempotent_and_works_while_waiting() -> None:
    queue = queue_of(1)
    queue.submit(entry("a"), 1.0)
    queue.submit(entry("b"), 1.0)
    assert queue.leave("b", 1.0) == []
    assert queue.leave("b", 1.0) == []
    assert queue.leave("a", 1.0) == []
    assert queue.in_flight == 0
    assert queue.work == 0


def test_leases_of_lost_callers_expire() -> None:
    queue = queue_of(1)
    queue.submit(entry("lost", deadline=10.0), 1.0)
    queue.submit(entry("next", deadline=99.0), 1.0)
    assert queue.expire(12.0, grace_s=5.0) == []
    assert queue.expire(15.1, grace_s=5.0) == ["lost"]
    assert queue.start(15.1) == ["next"]


def test_retry_hint_is_bounded() -> None:
    assert retry_after_s(1, 100) == 1.0
    assert retry_after_s(1e9, 1.0) == MAX_RETRY_AFTER_S
    assert retry_after_s(5, 0.0) == MAX_RETRY_AFTER_S, "no replica yet"


Step = tuple[int, int, int, int, bool]
steps = st.lists(
    st.tuples(st.integers(1, 5), st.integers(-1, 1), st.integers(0, 3), st.integers(1, 100), st.booleans()), max_size=60
)


@given(steps, st.integers(1, 6))
def test_capacity_holds_and_nothing_is_lost(moves: list[Step], capacity: int) -> None:
    queue = queue_of(capacity, max_depth=1000, owner_share=1.0)
    alive: set[str] = set()
    for number, (cost, priority, owner, work, leaves) in enumerate(moves):
        if leaves and queue.running:
            key = next(iter(queue.running))
            alive.discard(key)
            queue.leave(key, float(number))
        else:
            alive.add(str(number))
            queue.submit(
                entry(
                    str(number),
                    cost=cost,
                    priority=priority,
                    deadline=number + 10.0,
                    arrived=float(number),
                    owner=f"k{owner}",
                    work=float(work),
                ),
                1.0,
            )
        assert queue.in_flight <= capacity or len(queue.running) == 1
        assert alive == set(queue.waiting) | set(queue.running)
        assert not set(queue.waiting) & set(queue.running)
        assert queue._tags.keys() == queue.waiting.keys()
        assert queue.start(float(number)) == [], "what could start has started"


@given(st.integers(1, 4), st.integers(1, 30))
def test_nobody_starves(capacity: int, max_wait_s: int) -> None:
    """A stream of more important requests without end: one of no importance starts once it has waited its time, as
    soon as what arrived before it is through."""
    queue = queue_of(capacity, max_depth=10**6, max_wait_s=float(max_wait_s))
    for number in range(capacity):
        queue.submit(entry(f"first{number}"), 1.0)
    queue.submit(entry("humble", priority=99, owner="greedy", work=1e12), 1.0)
    second = 0
    while "humble" in queue.waiting:
        second += 1
        for number in range(capacity + 1):
            queue.submit(entry(f"{second}-{number}", priority=-9, arrived=float(second)), 1.0)
        queue.leave(next(iter(queue.running)), float(second))
        assert second <= max_wait_s + capacity
