"""The loss that balances the load of experts."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ConfigError
from engine.layers.moe import SparseMoE
from engine.layers.routing import RoutingRule, SigmoidRouting, SoftmaxRouting
from engine.training.router_loss import RouterLoss, balance

HIDDEN, EXPERTS, PER_TOKEN = 8, 4, 2


def layer(rule: RoutingRule | None = None) -> SparseMoE:
    moe = SparseMoE(HIDDEN, EXPERTS, 4, rule or SoftmaxRouting(experts_per_token=PER_TOKEN))
    generator = torch.Generator().manual_seed(0)
    for parameter in moe.parameters():
        parameter.data.normal_(generator=generator)
    return moe


def tokens(number: int) -> torch.Tensor:
    return torch.randn(number, HIDDEN, generator=torch.Generator().manual_seed(1))


def test_an_even_load_costs_the_experts_per_token_and_a_crowded_one_more() -> None:
    even = torch.tensor([[0, 1], [2, 3], [1, 2], [3, 0]])
    assert balance(torch.zeros(4, EXPERTS), even).item() == pytest.approx(PER_TOKEN)
    crowded_logits = torch.tensor([[20.0, 20.0, 0.0, 0.0]]).expand(4, EXPERTS)
    crowded = torch.tensor([[0, 1]]).expand(4, PER_TOKEN)
    assert balance(crowded_logits, crowded).item() == pytest.approx(EXPERTS)


def test_the_loss_is_the_written_out_sum_over_the_counted_tokens() -> None:
    moe = layer()
    loss = RouterLoss(moe, 0.5)
    x_TD, counted_T = tokens(6), torch.tensor([True, True, False, True, True, False])
    moe(x_TD)
    actual = loss.take(counted_T)
    probabilities = (x_TD[counted_T] @ moe.gate.weight.T).softmax(-1)
    chosen = torch.zeros_like(probabilities).scatter(1, probabilities.topk(PER_TOKEN).indices, 1.0)
    torch.testing.assert_close(actual, 0.5 * EXPERTS * (chosen.mean(0) * probabilities.mean(0)).sum())


def test_following_the_gradient_evens_out_the_load() -> None:
    moe = layer()
    moe.gate.weight.data[0] += 0.5
    x_TD = tokens(64).abs()
    loss, everywhere = RouterLoss(moe, 1.0), torch.ones(64, dtype=torch.bool)
    values = []
    for _ in range(40):
        moe(x_TD)
        value = loss.take(everywhere)
        value.backward()
        moe.gate.weight.data -= 0.5 * moe.gate.weight.grad
        moe.zero_grad()
        values.append(value.item())
    assert PER_TOKEN - 0.1 < values[-1] < 0.9 * values[0]


def test_forwards_without_gradients_are_not_listened_to() -> None:
    moe = layer()
    loss = RouterLoss(moe, 1.0)
    with torch.no_grad():
        moe(tokens(9))
    moe(tokens(4))
    assert loss.take(torch.ones(4, dtype=torch.bool)).requires_grad


def test_it_is_heard_inside_a_compiled_network() -> None:
    moe = layer()
    loss, x_TD, everywhere = RouterLoss(moe, 1.0), tokens(5), torch.ones(5, dtype=torch.bool)
    moe(x_TD)
    expected = loss.take(everywhere)
    torch.compile(lambda x_TD: moe(x_TD), backend="eager", fullgraph=True)(x_TD)
    torch.testing.assert_close(loss.take(everywhere), expected)


@pytest.mark.parametrize("moe", [torch.nn.Linear(2, 2), layer(SigmoidRouting(experts_per_token=2))])
def test_networks_without_softmax_routers_are_refused(moe: torch.nn.Module) -> None:
    with pytest.raises(ConfigError, match="softmax"):
        RouterLoss(moe, 1.0)
