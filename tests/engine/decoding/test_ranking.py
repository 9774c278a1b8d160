"""Ranks, top-k and the best position, with ties to the smaller index."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.decoding.ranking import best, rank_positions, top_k

SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
ROWS = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=9)


def ranked(row: list[tuple[float, bool]]) -> list[int]:
    """Eligible positions, best first: the plain definition."""
    return sorted((i for i, (_, eligible) in enumerate(row) if eligible), key=lambda i: (-row[i][0], i))


@given(ROWS)
def test_ranks_are_the_stable_descending_order(row: list[tuple[float, bool]]) -> None:
    scores, eligible = torch.tensor([[s for s, _ in row]]), torch.tensor([[e for _, e in row]])

    ranks = rank_positions(scores, eligible)[0].tolist()

    assert sorted(ranks) == list(range(len(row)))
    assert [ranks.index(place) for place in range(int(eligible.sum()))] == ranked(row)


@given(ROWS, st.integers(0, 12))
def test_top_k_takes_the_first_k_of_the_ranking(row: list[tuple[float, bool]], k: int) -> None:
    scores, eligible = torch.tensor([[s for s, _ in row]]), torch.tensor([[e for _, e in row]])

    chosen = top_k(scores, eligible, torch.tensor([k]))[0].nonzero().flatten().tolist()

    assert chosen == sorted(ranked(row)[:k])


@given(ROWS)
def test_best_is_the_first_of_the_ranking(row: list[tuple[float, bool]]) -> None:
    scores, eligible = torch.tensor([[s for s, _ in row]]), torch.tensor([[e for _, e in row]])

    assert best(scores, eligible)[0].nonzero().flatten().tolist() == ranked(row)[:1]


def test_scores_of_ineligible_positions_do_not_matter() -> None:
    eligible = torch.tensor([[True, False, True]])
    for odd in (torch.inf, -torch.inf, 1e30):
        scores = torch.tensor([[0.1, odd, 0.2]])
        assert rank_positions(scores, eligible)[0, [0, 2]].tolist() == [1, 0]
        assert best(scores, eligible).tolist() == [[False, False, True]]
