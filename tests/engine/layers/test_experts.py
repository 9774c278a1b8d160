"""Experts divided over ranks: what each contributes, and how often weights are read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.layers.experts import Experts
from engine.layers.routing import BlockRouting, Routing
from engine.parallel import ALONE, Part

HIDDEN, WIDTH, EXPERTS, PER_TOKEN = 16, 8, 12, 3
BLOCK = 32


def routing_of_blocks(num_blocks: int, seed: int = 0) -> Routing:
    """Blocks of 32 tokens that admit six experts each."""
    generator = torch.Generator().manual_seed(seed)
    logits_TE = torch.randn(num_blocks * BLOCK, EXPERTS, generator=generator)
    block_T = torch.arange(num_blocks).repeat_interleave(BLOCK)
    return BlockRouting(experts_per_token=PER_TOKEN, capacity=6).choose(logits_TE, None, block_T)


def make(part: Part = ALONE.expert_part, width_part: Part = ALONE.expert_width_part) -> Experts:
    """This rank's share of always the same experts."""
    generator = torch.Generator().manual_seed(1)
    gate_up = torch.randn(EXPERTS, 2, WIDTH, HIDDEN, generator=generator)
    down = torch.randn(EXPERTS, HIDDEN, WIDTH, generator=generator)
    own, width = slice(*part.span(EXPERTS)), slice(*width_part.span(WIDTH))
    experts = Experts(HIDDEN, EXPERTS, WIDTH, part, width_part)
    experts.gate_up_proj.data.copy_(gate_up[own, :, width].flatten(1, 2))
    experts.down_proj.data.copy_(down[own, :, width])
    return experts.requires_grad_(False)


def tokens(number: int) -> Tensor:
    return torch.randn(number, HIDDEN, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("grouped", "keeps_rest"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize(("parts", "width_parts"), [(2, 1), (5, 1), (3, 2), (1, 2)])
def test_the_ranks_shares_sum_up_to_the_whole(
    parts: int, width_parts: int, grouped: bool, keeps_rest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing, x_TD = routing_of_blocks(2), tokens(2 * BLOCK)
    expected = make()(x_TD, routing)
    monkeypatch.setattr(Experts, "_keeps_rest", lambda experts, x_TD: keeps_rest)  # as a CUDA device would
    monkeypatch.setattr(Experts, "_can_group", lambda experts, x_TD: grouped)

    shares = [
        make(Part(index, parts), Part(width, width_parts))(x_TD, routing)
        for index in range(parts)
        for width in range(width_parts)
    ]

    torch.testing.assert_close(torch.stack(shares).sum(0), expected, atol=1e-4, rtol=0)
    assert all(share.abs().sum() > 0 for share in shares)


def test_a_rank_whose_experts_nobody_chose() -> None:
    routing = Routing(torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.full((2, 3), 1 / 3))
    experts = make(Part(1, 2))

    assert torch.equal(experts(tokens(2), routing), torch.zeros(2, HIDDEN))


@pytest.mark.parametrize("part", [Part(), Part(0, 3), Part(2, 3)])
def test_weights_of_an_expert_are_read_once_however_many_blocks_chose_it(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts, routing = make(part), routing_of_blocks(4)
    read: list[int] = []
    storage = experts.down_proj.stride(0)

    def linear(x_nD: Tensor, weight: Tensor) -> Tensor:
        if weight.untyped_storage().data_ptr() == experts.down_proj.untyped_storage().data_ptr():
            read.append(experts.first + weight.storage_offset() // storage)
        return torch.matmul(x_nD, weight.T)

    monkeypatch.setattr(functional, "linear", linear)
    monkeypatch.setattr(Experts, "_can_group", lambda experts, x_TD: False)
    with torch.no_grad():
        experts(tokens(4 * BLOCK), routing)

    chosen = set(routing.experts_TK.flatten().tolist()) & set(range(*part.span(EXPERTS)))
    assert read == sorted(chosen), "each expert that any block chose, once, in order"


@torch.no_grad()
def test_the_grouped_product_has_one_range_of_rows_per_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    experts, routing = make(Part(1, 2)), routing_of_blocks(4)
    products: list[tuple[int, list[int]]] = []
    original = functional.grouped_mm

    def grouped_mm(x_RD: Tensor, weights: Tensor, *, offs: Tensor) -> Tensor:
        products.append((len(x_RD), offs.tolist()))
        return original(x_RD, weights, offs=offs)

    monkeypatch.setattr(functional, "grouped_mm", grouped_mm)
    experts(tokens(4 * BLOCK), routing)

    counts = torch.bincount(routing.experts_TK.flatten(), minlength=EXPERTS)[EXPERTS // 2 :]
    ends = counts.cumsum(0).tolist()
    assert products == [(ends[-1], ends)] * 2


def test_in_training_all_experts_are_computed_where_most_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    routing, x_TD = routing_of_blocks(1), tokens(BLOCK)
    experts = make().requires_grad_()
    gradients = []
    for chosen_only in (True, False):
        monkeypatch.setattr("engine.layers.experts.MOST_ARITHMETIC", 1 if chosen_only else EXPERTS // PER_TOKEN)
        output = experts(x_TD, routing)
        gradients.append((output.detach(), *torch.autograd.grad(output.square().sum(), list(experts.parameters()))))
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)
