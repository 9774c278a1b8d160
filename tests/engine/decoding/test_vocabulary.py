"""Ranks with some columns each give what one rank with all of them gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.columns import Columns
from engine.decoding.divergence import DivergenceMemory
from engine.decoding.end_of_text import expected_ends
from engine.decoding.vocabulary import Vocabulary
from tests.helpers.vocabulary import Work, alone, columns_of_ranks, numbers_of_ranks, random_logits

RANKS = (2, 3)
MASKS = (0, 10)
"""In the first and in the last rank's columns."""

IDS = torch.tensor([[0, 10, -1], [5, 5, 3], [-1, -1, -1], [10, 2, 7]])
EOS_IDS = torch.tensor([1, 9])
LISTS = st.lists(st.integers(-3, 3).map(lambda value: value / 2) | st.just(-torch.inf), min_size=4, max_size=9)

NUMBERS: Mapping[str, Work] = {
    "log_total": lambda vocabulary, logits: vocabulary.log_total(logits),
    "log_total_of": lambda vocabulary, logits: vocabulary.log_total_of(logits, EOS_IDS),
    "no tokens": lambda vocabulary, logits: vocabulary.log_total_of(logits, EOS_IDS[:0]),
    "best logit": lambda vocabulary, logits: vocabulary.best(logits).logit_M,
    "best probability": lambda vocabulary, logits: vocabulary.best(logits, without=10).probability_M,
    "best in parts": lambda vocabulary, logits: vocabulary.best_in_parts(in_parts(logits), without=10).probability_M,
    "pick": lambda vocabulary, logits: vocabulary.pick(logits, IDS),
    "probability": lambda vocabulary, logits: vocabulary.probability_of(logits, IDS[:, 1].clamp(min=0)),
    "entropy": lambda vocabulary, logits: vocabulary.entropy(logits),
    "margin": lambda vocabulary, logits: vocabulary.margin(logits),
    "ends": lambda vocabulary, logits: torch.stack(expected_ends(logits, vocabulary, EOS_IDS)),  # type: ignore[arg-type]
}
COLUMNS: Mapping[str, Work] = {
    "softmax": lambda vocabulary, logits: vocabulary.softmax(logits),
    "log_softmax": lambda vocabulary, logits: vocabulary.log_softmax(logits),
    "without": lambda vocabulary, logits: vocabulary.without(logits, 10),
    "without_listed": lambda vocabulary, logits: vocabulary.without_listed(logits, IDS),
    "put": lambda vocabulary, logits: vocabulary.put(logits, IDS, (IDS + 100).float()),
    "own and put": lambda vocabulary, logits: vocabulary.put(logits, IDS, vocabulary.own(logits, IDS) * 2),
    "add": lambda vocabulary, logits: vocabulary.add(logits, IDS, torch.full((4, 3), 0.5)),
}


def in_parts(logits_MV: Tensor) -> Iterator[tuple[int, Tensor]]:
    return ((start, logits_MV[:, start : start + 4].t().clone()) for start in range(0, logits_MV.shape[1], 4))


@pytest.mark.parametrize("without", [None, 0, 3, 4, 10])
def test_parts_have_the_best_of_the_whole(without: int | None) -> None:
    logits = random_logits(6, 11, levels=2)
    logits[:, [2, 9]] = 20.0  # of equals the first part has it
    logits[0, 4:8] = -torch.inf
    whole, parts = Vocabulary(11).best(logits, without), Vocabulary(11).best_in_parts(in_parts(logits), without)
    assert torch.equal(parts.token_M, whole.token_M)
    assert torch.equal(parts.logit_M, whole.logit_M)
    torch.testing.assert_close(parts.log_total_M, whole.log_total_M)


def normal(size: int = 11) -> Tensor:
    logits = random_logits(4, size)
    logits[1, :6] = -torch.inf  # nothing on the first rank
    return logits


@pytest.mark.parametrize("count", RANKS)
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_one_rank(name: str, count: int) -> None:
    expected = alone(NUMBERS[name], normal())
    torch.testing.assert_close(numbers_of_ranks(count, NUMBERS[name], normal()), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("count", RANKS)
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_those_of_one_rank(name: str, count: int) -> None:
    expected = alone(COLUMNS[name], normal())
    torch.testing.assert_close(columns_of_ranks(count, COLUMNS[name], normal()), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("count", RANKS)
def test_the_best_token_and_ties_go_to_the_smallest_id_of_all_ranks(count: int, mask: int) -> None:
    logits = random_logits(60, 11, levels=1, scale=1.0)
    tokens = numbers_of_ranks(count, lambda vocabulary, own: vocabulary.best(own, without=mask).token_M, logits)
    without_mask = logits.clone()
    without_mask[:, mask] = -torch.inf
    first = (without_mask == without_mask.amax(dim=1, keepdim=True)).int().argmax(dim=1)
    assert torch.equal(tokens, first)
    largest = numbers_of_ranks(count, lambda vocabulary, own: vocabulary.largest(own)[1], logits)
    assert torch.equal(largest, (logits == logits.amax(dim=1, keepdim=True)).int().argmax(dim=1))


@pytest.mark.parametrize("size", [3, 4, 7])
def test_a_rank_may_have_a_single_column(size: int) -> None:
    logits = random_logits(5, size)
    for name in ("margin", "entropy", "log_total"):
        torch.testing.assert_close(numbers_of_ranks(3, NUMBERS[name], logits), alone(NUMBERS[name], logits))
    tokens = numbers_of_ranks(3, lambda vocabulary, own: vocabulary.best(own, without=1).token_M, logits)
    assert torch.equal(tokens, alone(lambda vocabulary, own: vocabulary.best(own, without=1).token_M, logits))


@settings(max_examples=12)
@given(st.lists(LISTS, min_size=1, max_size=1), st.sampled_from(RANKS))
def test_any_logits_even_impossible_ones(rows: list[list[float]], count: int) -> None:
    logits = torch.tensor(rows)
    logits[:, -1] = 0.25  # one is possible
    for name in ("log_total", "entropy", "margin", "best logit"):
        expected = alone(NUMBERS[name], logits)
        torch.testing.assert_close(numbers_of_ranks(count, NUMBERS[name], logits), expected, atol=1e-6, rtol=1e-5)


def test_no_position_needs_no_exchange() -> None:
    nothing = torch.zeros(0, 11)
    assert numbers_of_ranks(2, NUMBERS["entropy"], nothing).shape == (0,)
    assert numbers_of_ranks(2, lambda vocabulary, own: vocabulary.best(own).token_M, nothing).shape == (0,)


@pytest.mark.parametrize("count", RANKS)
def test_each_rank_remembers_its_own_columns_of_distributions(count: int) -> None:
    now, then = random_logits(2, 11, seed=1), random_logits(2, 11, seed=2)
    slots, offsets, start = torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([4, 4])

    def moved(vocabulary: Vocabulary, own: Tensor) -> Tensor:
        columns = Columns(1, torch.device("cpu"))
        memory = DivergenceMemory(columns, vocabulary)
        memory.admit(0, 2)
        memory.store(slots, offsets, then[:, vocabulary.start : vocabulary.end])
        memory.settle(slots[:1], start[:1])
        assert columns.column("divergence", "before")[0].shape[-1] == vocabulary.width
        return memory.compare(slots, offsets, start, own)

    torch.testing.assert_close(numbers_of_ranks(count, moved, now), alone(moved, now), atol=1e-6, rtol=1e-5)


def test_spans_cover_all_ids_and_turns_are_equal_on_all_ranks() -> None:
    def spans(vocabulary: Vocabulary, own: Tensor) -> Tensor:
        return torch.tensor([[vocabulary.start, vocabulary.end, vocabulary.widest]])

    assert columns_of_ranks(3, spans, torch.zeros(1, 11)).tolist() == [[0, 4, 4, 4, 8, 4, 8, 11, 4]]
