"""The order of waiting requests: priority, deadline, arrival; aging; nothing starves, and no operation looks at all."""

from __future__ import annotations

import math
import time

from hypothesis import given
from hypothesis import strategies as st

from engine.sequence import Sequence
from engine.waiting import MAX_LIFTS, WaitingQueue
from tests.engine.test_scheduler import sequence


def drain(queue: WaitingQueue) -> list[int]:
    order = []
    while (one := queue.first()) is not None:
        order.append(one.arrival)
        queue.remove(one)
    return order


@given(st.lists(st.tuples(st.integers(-2, 2), st.sampled_from([1.0, 2.0, math.inf]), st.booleans()), max_size=30))
def test_the_order_is_that_of_a_sorted_list(items: list[tuple[int, float, bool]]) -> None:
    queue, kept = WaitingQueue(0.0), []
    for arrival, (priority, deadline_s, leaves) in enumerate(items):
        one = sequence(arrival, priority=priority, deadline_s=deadline_s)
        queue.push(one, 0.0)
        if leaves:
            queue.remove(one)
        else:
            kept.append((priority, deadline_s, arrival))
    assert len(queue) == len(kept)
    following = [one.arrival for one in queue.after_first(3)]
    order = [arrival for _, _, arrival in sorted(kept)]
    assert following == order[1:4]
    assert drain(queue) == order


def test_who_waits_rises_by_one_then_two_then_four() -> None:
    queue = WaitingQueue(10.0)
    waiting = sequence(0, priority=5)
    queue.push(waiting, 0.0)
    for now_s, priority in ((0, 5), (9.9, 5), (10, 4), (19.9, 4), (20, 2), (30, -2), (40, -10)):
        queue.rise(now_s)
        for beside, wins in ((priority, True), (priority - 1, False)):
            queue.push(newcomer := sequence(1, priority=beside), now_s)
            assert (queue.first() is waiting) == wins, (now_s, beside)
            queue.remove(newcomer)


def test_nothing_starves_whatever_the_others_ask_for() -> None:
    """The least urgent request against an endless stream of the most urgent ones."""
    queue = WaitingQueue(1.0)
    last = sequence(0, priority=2**31 - 1)
    queue.push(last, 0.0)
    for second in range(1, MAX_LIFTS + 2):
        queue.rise(float(second))
        queue.push(sequence(second, priority=-(2**31), deadline_s=1.0), float(second))
        if queue.first() is last:
            return
    raise AssertionError("it starves")


def test_without_aging_nothing_rises() -> None:
    queue = WaitingQueue(0.0)
    queue.push(sequence(0, priority=1), 0.0)
    assert not queue.rise(1e9)


def test_a_latest_start_counts_until_the_request_leaves_and_anew_when_it_comes_again() -> None:
    queue = WaitingQueue(0.0)
    one, other = sequence(0), sequence(1)
    queue.push(one, 0.0, latest_start_s=5.0)
    queue.push(other, 0.0, latest_start_s=6.0)
    queue.remove(one)
    queue.push(one, 4.0, latest_start_s=9.0)
    assert queue.too_late(5.5) == []
    assert queue.too_late(8.0) == [other]
    assert queue.too_late(10.0) == [one]
    assert len(queue) == 0


def test_memory_follows_the_queue_although_removals_look_at_nothing() -> None:
    queue = WaitingQueue(10.0)
    staying = sequence(0)
    queue.push(staying, 0.0)
    for arrival in range(1, 2000):
        one = sequence(arrival, priority=1)
        queue.push(one, 0.0, latest_start_s=1e9)
        queue.remove(one)
    assert len(queue._order) + len(queue._lifts) + len(queue._last_calls) < 300
    assert queue.first() is staying


def cost_per_operation(num_waiting: int) -> float:
    queue, waiting = WaitingQueue(10.0), [sequence(arrival, priority=arrival % 7) for arrival in range(num_waiting)]
    for one in waiting:
        queue.push(one, 0.0)
    started = time.process_time()
    for _ in range(300):
        gone = queue.first()
        assert isinstance(gone, Sequence)
        queue.remove(gone)
        queue.push(gone, 0.0)
    return time.process_time() - started


def test_an_operation_costs_the_same_with_few_and_many_waiting() -> None:
    few = min(cost_per_operation(4) for _ in range(2))
    many = min(cost_per_operation(1000) for _ in range(2))
    assert many < 10 * few, "a scan of the queue would be a hundred times slower and more"
