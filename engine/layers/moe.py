"""Mixture of experts: a router, the routed experts and shared experts.

Shape legend: T tokens of a forward, D hidden size, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.layers.exchange import exchange, gather_tokens, own_tokens
from engine.layers.experts import Experts
from engine.layers.mlp import SwiGLU
from engine.layers.routing import Routing, RoutingRule
from engine.parallel import ALONE, Ranks


class Router(nn.Module):
    """Linear scores and a rule, whole on every rank. Parameters stay in float32 whatever the model's dtype: rounding
    them changes which experts are chosen."""

    float32_parameters = frozenset({"weight", "expert_bias"})

    def __init__(self, hidden_size: int, num_experts: int, rule: RoutingRule, *, expert_bias: bool = False) -> None:
        super().__init__()
        self.rule = rule
        self.weight = nn.Parameter(torch.empty(num_experts, hidden_size))
        self.expert_bias = nn.Parameter(torch.empty(num_experts)) if expert_bias else None

    def forward(self, x_TD: Tensor, block_T: Tensor | None = None) -> Routing:
        bias_E = None if self.expert_bias is None else self.expert_bias.float()
        return self.rule.choose(functional.linear(x_TD.float(), self.weight.float()), bias_E, block_T)


class SparseMoE(nn.Module):
    """Routed experts, plus shared experts that see every token (one SwiGLU of their summed width).

    With the dispatch ``all_reduce`` every rank computes all tokens as far as its experts go, and a part of the shared
    experts' width; one sum over all ranks makes the output. With ``all_to_all`` it has all shared experts and computes
    its share of the tokens, whose rows travel to the ranks of their routed experts.
    """

    def __init__(
        self,
        hidden_size: int,
        num_experts: int,
        intermediate_size: int,
        rule: RoutingRule,
        *,
        expert_bias: bool = False,
        shared_intermediate_size: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self._world = ranks.world
        self._divides_tokens = ranks.layout.dispatch == "all_to_all"
        self.gate = Router(hidden_size, num_experts, rule, expert_bias=expert_bias)
        parts = (ranks.expert_part, ranks.expert_width_part)
        self.experts = Experts(hidden_size, num_experts, intermediate_size, *parts)
        group = ALONE.world if self._divides_tokens else ranks.world
        self.shared_experts = SwiGLU(hidden_size, shared_intermediate_size, group) if shared_intermediate_size else None

    def forward(self, x_TD: Tensor, block_T: Tensor | None = None) -> Tensor:
        """``block_T`` as for RoutingRule.choose."""
        routing: Routing = self.gate(x_TD, block_T)
        if self._divides_tokens:
            start, end = own_tokens(len(x_TD), self._world.part)
            own_CD = self._with_shared(exchange(self.experts, x_TD, routing, self._world), x_TD[start:end])
            return gather_tokens(own_CD, len(x_TD), self._world)
        return self._world.all_reduce(self._with_shared(self.experts(x_TD, routing), x_TD))

    def _with_shared(self, routed_TD: Tensor, x_TD: Tensor) -> Tensor:
        return routed_TD if self.shared_experts is None else routed_TD + self.shared_experts.partial(x_TD)
