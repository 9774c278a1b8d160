"""A replica over two nodes: what is said while it finds no room, and that clients do not notice a lost node."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.helpers.node_loss import NUM_SLOTS, Losses, lose_a_node

pytestmark = pytest.mark.timeout(300)

DETECTED_WITHIN_S = 15.0


@pytest.fixture(scope="module")
def losses() -> Losses:
    """What happened when the follower's node was lost. In another process: this one may have a Ray already."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(lose_a_node).result()


def test_a_start_without_room_says_what_is_missing(losses: Losses) -> None:
    missing = "2 ranks of 1 CPU each do not fit on a node each (placement_strategy STRICT_SPREAD): there is room for 0"
    assert f"{missing}; missing: 2 CPU" in losses.announced[0]
    assert losses.announced_after_s < 60


def test_a_stream_goes_on_after_the_loss(losses: Losses) -> None:
    assert len(losses.undisturbed) > 96, "the text goes on to the end"
    assert losses.text == losses.undisturbed


def test_a_client_without_time_is_answered_meanwhile(losses: Losses) -> None:
    assert "deadline_exceeded" in losses.refusal
    assert "missing: 1 CPU" in losses.refusal


def test_the_whole_group_is_replaced(losses: Losses) -> None:
    before, after = losses.before, losses.after
    assert before is not None
    assert after is not None
    assert losses.detected_after_s < DETECTED_WITHIN_S
    assert not set(before.pids) & set(after.pids)
    assert len(set(before.nodes)) == len(set(after.nodes)) == 2
    assert losses.lost_node not in after.nodes
    assert set(losses.survivors) <= set(after.nodes)


def test_nothing_is_left_of_the_lost_group(losses: Losses) -> None:
    for snapshot in (losses.before, losses.after):
        assert snapshot is not None
        assert snapshot.num_workers == 1
        assert snapshot.groups == [snapshot.nodes]
        assert snapshot.num_free_slots == NUM_SLOTS
    assert losses.left == []
