"""What a slot remembers of its distributions, and when it counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.columns import Columns
from engine.decoding.divergence import DivergenceMemory, divergence
from engine.decoding.vocabulary import Vocabulary

SLOTS, OFFSETS, START = torch.tensor([1, 1, 2]), torch.tensor([0, 2, 1]), torch.tensor([8, 8, 20])
LOGITS = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.5, 0.0], [3.0, 0.0, 0.0]])


@pytest.fixture
def memory() -> DivergenceMemory:
    memory = DivergenceMemory(Columns(4, torch.device("cpu")), Vocabulary(3))
    for slot in (1, 2):
        memory.admit(slot, 4)
    return memory


def settle(memory: DivergenceMemory, *starts: int) -> None:
    memory.settle(torch.tensor([1, 2]), torch.tensor(starts))


def kl(now: Tensor, before: Tensor) -> Tensor:
    return torch.nn.functional.kl_div(before.log_softmax(1), now.log_softmax(1), reduction="none", log_target=True).sum(
        1
    )


def test_a_block_that_nobody_remembers_is_infinitely_far(memory: DivergenceMemory) -> None:
    assert memory.compare(SLOTS, OFFSETS, START, LOGITS).isinf().all()


def test_all_places_of_a_block_compare_before_it_counts_as_remembered(memory: DivergenceMemory) -> None:
    assert memory.compare(SLOTS[:1], OFFSETS[:1], START[:1], LOGITS[:1]).isinf().all()
    assert memory.compare(SLOTS[1:], OFFSETS[1:], START[1:], LOGITS[1:]).isinf().all()


def test_the_next_step_is_compared_with_the_last(memory: DivergenceMemory) -> None:
    memory.compare(SLOTS, OFFSETS, START, LOGITS)
    settle(memory, 8, 20)
    torch.testing.assert_close(memory.compare(SLOTS, OFFSETS, START, LOGITS.flip(0)), kl(LOGITS.flip(0), LOGITS))
    torch.testing.assert_close(memory.compare(SLOTS, OFFSETS, START, LOGITS), kl(LOGITS, LOGITS.flip(0)))


def test_another_block_is_infinitely_far_unless_it_was_stored(memory: DivergenceMemory) -> None:
    memory.compare(SLOTS, OFFSETS, START, LOGITS)
    settle(memory, 8, 24)
    memory.store(SLOTS[2:], OFFSETS[2:], LOGITS[:1])
    moved = memory.compare(SLOTS, OFFSETS, torch.tensor([12, 12, 24]), LOGITS)
    assert moved[:2].isinf().all()
    torch.testing.assert_close(moved[2:], kl(LOGITS[2:], LOGITS[:1]))


def test_a_new_request_remembers_nothing(memory: DivergenceMemory) -> None:
    memory.compare(SLOTS, OFFSETS, START, LOGITS)
    settle(memory, 8, 20)
    memory.admit(1, 8)
    assert memory.compare(SLOTS, OFFSETS, START, LOGITS).isinf().tolist() == [True, True, False]


def test_impossible_tokens_add_nothing() -> None:
    banned = torch.tensor([[0.0, -torch.inf]]).log_softmax(1)
    assert divergence(banned, banned).tolist() == [0.0]
