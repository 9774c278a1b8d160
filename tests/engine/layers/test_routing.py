"""Routing rules against their definitions, written out token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.layers.routing import BlockRouting, Routing, SigmoidRouting, SoftmaxRouting


def random_logits(num_tokens: int, num_experts: int, seed: int) -> Tensor:
    return torch.randn(num_tokens, num_experts, generator=torch.Generator().manual_seed(seed))


def weight_of(routing: Routing, token: int) -> dict[int, float]:
    """The weights of a token's experts."""
    experts, weights = routing.experts_TK[token].tolist(), routing.weights_TK[token].tolist()
    return dict(zip(experts, weights, strict=True))


def best(values: list[float], number: int) -> list[int]:
    """Indices of the largest values, smaller indices first where they are equal."""
    return sorted(range(len(values)), key=lambda index: (-values[index], index))[:number]


@given(seed=st.integers(0, 10_000), chosen=st.integers(1, 6), normalize=st.booleans())
def test_softmax_takes_the_most_probable(seed: int, chosen: int, normalize: bool) -> None:
    logits_TE = random_logits(5, 6, seed)

    routing = SoftmaxRouting(experts_per_token=chosen, normalize=normalize).choose(logits_TE, None, None)

    for token, probabilities in enumerate(logits_TE.softmax(-1).tolist()):
        experts = best(probabilities, chosen)
        total = sum(probabilities[expert] for expert in experts) if normalize else 1.0
        assert weight_of(routing, token) == pytest.approx({e: probabilities[e] / total for e in experts}, rel=1e-5)


@given(seed=st.integers(0, 10_000), kept=st.integers(1, 4), scale=st.sampled_from([1.0, 2.5]))
def test_sigmoid_chooses_within_the_best_groups(seed: int, kept: int, scale: float) -> None:
    logits_TE, bias_E = random_logits(5, 12, seed), random_logits(1, 12, seed + 1)[0]
    rule = SigmoidRouting(experts_per_token=3, num_groups=4, groups_per_token=kept, scale=scale)

    routing = rule.choose(logits_TE, bias_E, None)

    for token, scores in enumerate(logits_TE.sigmoid().tolist()):
        biased = [score + bias for score, bias in zip(scores, bias_E.tolist(), strict=True)]
        group_scores = [sum(sorted(biased[3 * group : 3 * group + 3])[-2:]) for group in range(4)]
        allowed = {expert for group in best(group_scores, kept) for expert in range(3 * group, 3 * group + 3)}
        experts = best([biased[e] if e in allowed else -float("inf") for e in range(12)], 3)
        total = sum(scores[expert] for expert in experts)
        assert weight_of(routing, token) == pytest.approx({e: scores[e] / total * scale for e in experts}, rel=1e-5)


def test_the_bias_chooses_but_does_not_weigh() -> None:
    logits_TE = torch.tensor([[0.0, 1.0, 2.0]])
    rule = SigmoidRouting(experts_per_token=1)

    assert weight_of(rule.choose(logits_TE, None, None), 0) == {2: pytest.approx(1.0)}
    assert weight_of(rule.choose(logits_TE, torch.tensor([9.0, 0.0, 0.0]), None), 0) == {0: pytest.approx(1.0)}


@given(seed=st.integers(0, 10_000), capacity=st.integers(2, 8))
def test_block_routing_admits_the_best_of_any_token(seed: int, capacity: int) -> None:
    logits_TE, bias_E = random_logits(7, 8, seed), random_logits(1, 8, seed + 1)[0]
    blocks = [0, 0, 1, 1, 1, 2, 2]

    routing = BlockRouting(experts_per_token=2, capacity=capacity, scale=2.0).choose(
        logits_TE, bias_E, torch.tensor(blocks)
    )

    scores_TE = logits_TE.sigmoid()
    biased_TE = scores_TE + bias_E
    for token, block in enumerate(blocks):
        members = [other for other, its_block in enumerate(blocks) if its_block == block]
        admitted = best([float(biased_TE[members, expert].max()) for expert in range(8)], capacity)
        candidates = [float(biased_TE[token, e]) if e in admitted else -float("inf") for e in range(8)]
        experts = best(candidates, 2)
        total = float(sum(scores_TE[token, expert] for expert in experts))
        expected = {expert: float(scores_TE[token, expert]) / total * 2.0 for expert in experts}
        assert weight_of(routing, token) == pytest.approx(expected, rel=1e-5)


def test_a_block_admits_lower_ids_where_scores_are_equal() -> None:
    logits_TE = torch.zeros(2, 6)

    routing = BlockRouting(experts_per_token=3, capacity=3).choose(logits_TE, None, torch.tensor([0, 0]))

    assert routing.experts_TK.sort(-1).values.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_blocks_do_not_see_each_other() -> None:
    rule = BlockRouting(experts_per_token=2, capacity=3)
    logits_TE = random_logits(6, 8, 3)
    together = rule.choose(logits_TE, None, torch.tensor([0, 0, 0, 1, 1, 1]))

    for start in (0, 3):
        alone = rule.choose(logits_TE[start : start + 3], None, torch.zeros(3, dtype=torch.int64))
        torch.testing.assert_close(alone.experts_TK, together.experts_TK[start : start + 3])
        torch.testing.assert_close(alone.weights_TK, together.weights_TK[start : start + 3], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rule", "per_block"),
    [
        (SoftmaxRouting(experts_per_token=2), False),
        (SigmoidRouting(experts_per_token=2, num_groups=2, groups_per_token=1), False),
        (BlockRouting(experts_per_token=2, capacity=4), True),
    ],
)
def test_choices_are_distinct_and_only_block_rules_need_blocks(rule: SoftmaxRouting, per_block: bool) -> None:
    assert rule.per_block == per_block
    block_T = torch.zeros(9, dtype=torch.int64) if per_block else None

    routing = rule.choose(random_logits(9, 8, 1), None, block_T)

    assert routing.weights_TK.dtype == torch.float32
    assert all(len(set(experts)) == 2 for experts in routing.experts_TK.tolist())
