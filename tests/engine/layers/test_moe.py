"""The mixture-of-experts layer against a sum over experts, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.layers.experts import Experts
from engine.layers.moe import Router, SparseMoE
from engine.layers.routing import Routing, RoutingRule, SigmoidRouting, SoftmaxRouting

HIDDEN, WIDTH, EXPERTS = 16, 8, 6


def fill(module: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)


def tokens(number: int, seed: int = 1) -> Tensor:
    return torch.randn(number, HIDDEN, generator=torch.Generator().manual_seed(seed))


def written_out(experts: Experts, x_TD: Tensor, routing: Routing) -> Tensor:
    """Token by token, in float64."""
    output_TD = torch.zeros_like(x_TD, dtype=torch.float64)
    for token, x_D in enumerate(x_TD.double()):
        pairs = zip(routing.experts_TK[token].tolist(), routing.weights_TK[token].double(), strict=True)
        for expert, weight in pairs:
            gate_F, up_F = (experts.gate_up_proj[expert].double() @ x_D).chunk(2)
            output_TD[token] += weight * (experts.down_proj[expert].double() @ (functional.silu(gate_F) * up_F))
    return output_TD


@pytest.mark.parametrize("number", [1, 2, 40])
@pytest.mark.parametrize(
    "rule",
    [
        SoftmaxRouting(experts_per_token=2),
        SoftmaxRouting(experts_per_token=6, normalize=True),
        SigmoidRouting(experts_per_token=2, num_groups=3, groups_per_token=2, scale=2.5),
    ],
    ids=["softmax", "all experts", "sigmoid"],
)
def test_the_layer_is_a_weighted_sum_of_experts(rule: RoutingRule, number: int) -> None:
    layer = SparseMoE(HIDDEN, EXPERTS, WIDTH, rule, expert_bias=isinstance(rule, SigmoidRouting))
    fill(layer)
    x_TD = tokens(number)

    with torch.no_grad():
        actual, expected = layer(x_TD), written_out(layer.experts, x_TD, layer.gate(x_TD))

    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)


def test_shared_experts_see_every_token() -> None:
    layer = SparseMoE(HIDDEN, EXPERTS, WIDTH, SoftmaxRouting(experts_per_token=2), shared_intermediate_size=12)
    fill(layer)
    x_TD = tokens(5)
    assert layer.shared_experts is not None

    with torch.no_grad():
        routed_TD = layer.experts(x_TD, layer.gate(x_TD))
        torch.testing.assert_close(layer(x_TD), routed_TD + layer.shared_experts(x_TD))


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    layer = SparseMoE(HIDDEN, EXPERTS, WIDTH, SoftmaxRouting(experts_per_token=3))
    fill(layer)
    x_TD = tokens(30)

    with torch.no_grad():
        together_TD = layer(x_TD)
        for start, end in ((0, 1), (1, 4), (4, 30)):
            torch.testing.assert_close(layer(x_TD[start:end]), together_TD[start:end], atol=1e-5, rtol=1e-5)


def test_both_ways_to_compute_agree() -> None:
    experts = Experts(HIDDEN, EXPERTS, WIDTH)
    fill(experts)
    end_E = torch.tensor([0, 3, 1, 0, 7, 2]).cumsum(0)

    with torch.no_grad():
        assert experts._can_group(tokens(13))
        torch.testing.assert_close(
            experts._grouped(tokens(13), end_E), experts._one_by_one(tokens(13), end_E), atol=1e-5, rtol=1e-5
        )


def test_widths_that_no_grouped_product_takes() -> None:
    layer = SparseMoE(HIDDEN, EXPERTS, 7, SoftmaxRouting(experts_per_token=2))
    fill(layer)
    x_TD = tokens(9)

    with torch.no_grad():
        assert not layer.experts._can_group(x_TD)
        expected = written_out(layer.experts, x_TD, layer.gate(x_TD))
        torch.testing.assert_close(layer(x_TD).double(), expected, atol=1e-5, rtol=1e-5)


def test_gradients_reach_the_experts_in_use_and_the_router() -> None:
    layer = SparseMoE(HIDDEN, EXPERTS, WIDTH, SoftmaxRouting(experts_per_token=2))
    fill(layer)
    x_TD = tokens(4)

    layer(x_TD).square().sum().backward()

    used = set(layer.gate(x_TD).experts_TK.flatten().tolist())
    assert layer.gate.weight.grad is not None
    assert layer.gate.weight.grad.abs().sum() > 0
    assert layer.experts.down_proj.grad is not None
    assert {e for e in range(EXPERTS) if layer.experts.down_proj.grad[e].abs().sum() > 0} == used


def test_the_router_works_in_float32_whatever_the_tokens_are() -> None:
    router = Router(HIDDEN, EXPERTS, SigmoidRouting(experts_per_token=2), expert_bias=True)
    fill(router)
    x_TD = tokens(20).bfloat16()

    rounded, exact = router(x_TD), router(x_TD.float())

    torch.testing.assert_close(rounded.experts_TK, exact.experts_TK)
    torch.testing.assert_close(rounded.weights_TK, exact.weights_TK, rtol=0, atol=0)
