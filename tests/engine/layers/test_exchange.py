"""Tokens that travel to the ranks of their experts and back."""

from __future__ import annotations

import pytest
import torch

from engine.layers.exchange import exchange, gather_tokens, own_tokens
from engine.layers.experts import Experts
from engine.layers.routing import Routing
from engine.parallel import ParallelLayout, Part, Ranks
from tests.helpers.ranks import ThreadGroup, on_ranks

HIDDEN, WIDTH, EXPERTS, PER_TOKEN = 16, 8, 5, 2


def experts_of(part: Part) -> Experts:
    generator = torch.Generator().manual_seed(1)
    whole = [torch.randn(shape, generator=generator) for shape in ((EXPERTS, 16, HIDDEN), (EXPERTS, HIDDEN, WIDTH))]
    experts = Experts(HIDDEN, EXPERTS, WIDTH, part)
    for parameter, values in zip(experts.parameters(), whole, strict=True):
        parameter.data.copy_(values[slice(*part.span(EXPERTS))])
    return experts.requires_grad_(False)


def some_routing(num_tokens: int, num_chosen: int = EXPERTS) -> Routing:
    generator = torch.Generator().manual_seed(num_tokens)
    chosen = torch.rand(num_tokens, num_chosen, generator=generator).argsort(-1)[:, :PER_TOKEN]
    return Routing(chosen, torch.rand(num_tokens, PER_TOKEN, generator=generator))


@pytest.mark.parametrize(("num_ranks", "num_tokens"), [(2, 7), (3, 9), (3, 4), (4, 2), (2, 1), (5, 40)])
@pytest.mark.parametrize("num_chosen", [EXPERTS, PER_TOKEN], ids=["all experts", "one rank's experts"])
def test_every_token_gets_what_one_rank_would_compute(num_ranks: int, num_tokens: int, num_chosen: int) -> None:
    x_TD = torch.randn(num_tokens, HIDDEN, generator=torch.Generator().manual_seed(3))
    routing = some_routing(num_tokens, num_chosen)
    with torch.no_grad():  # with gradients a whole mixture computes all its experts, and rounds otherwise
        expected = experts_of(Part())(x_TD, routing)

    @torch.no_grad()
    def run(ranks: Ranks) -> tuple[torch.Tensor, int]:
        own_CD = exchange(experts_of(ranks.expert_part), x_TD, routing, ranks.world)
        assert isinstance(ranks.world, ThreadGroup)
        return gather_tokens(own_CD, num_tokens, ranks.world), ranks.world.sizes[0]

    results = on_ranks(ParallelLayout(1, num_ranks, "all_to_all"), run)

    for actual, _ in results:
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    assert sum(sent for _, sent in results) == num_tokens * PER_TOKEN * HIDDEN, "each row leaves once"


@pytest.mark.parametrize(("num_tokens", "num_ranks"), [(1, 4), (7, 2), (8, 4), (9, 4), (100, 7)])
def test_tokens_are_shared_out_without_gaps(num_tokens: int, num_ranks: int) -> None:
    spans = [own_tokens(num_tokens, Part(index, num_ranks)) for index in range(num_ranks)]
    assert [token for start, end in spans for token in range(start, end)] == list(range(num_tokens))
