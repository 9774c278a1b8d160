"""Mixture of experts: a router, the routed experts as two stacked matrices, and shared experts.

Shape legend: T tokens of a forward, D hidden size, E experts, K experts per token, F width of an expert, A = T * K
assignments of a token to an expert.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.layers.mlp import SwiGLU
from engine.layers.routing import Routing, RoutingRule


class Router(nn.Module):
    """Linear scores and a rule. Parameters stay in float32 whatever the model's dtype: rounding them changes which
    experts are chosen."""

    float32_parameters = frozenset({"weight", "expert_bias"})

    def __init__(self, hidden_size: int, num_experts: int, rule: RoutingRule, *, expert_bias: bool = False) -> None:
        super().__init__()
        self.rule = rule
        self.weight = nn.Parameter(torch.empty(num_experts, hidden_size))
        self.expert_bias = nn.Parameter(torch.empty(num_experts)) if expert_bias else None

    def forward(self, x_TD: Tensor, block_T: Tensor | None = None) -> Routing:
        bias_E = None if self.expert_bias is None else self.expert_bias.float()
        return self.rule.choose(functional.linear(x_TD.float(), self.weight.float()), bias_E, block_T)


class Experts(nn.Module):
    """E SwiGLU networks: gate and up packed in ``gate_up_proj`` ``[E, 2F, D]``, ``down_proj`` ``[E, D, F]``."""

    def __init__(self, hidden_size: int, num_experts: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size))

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        """Weighted sum of the chosen experts' outputs ``[T, D]``.

        Assignments are sorted by expert so that each expert's tokens are adjacent; outputs are put back into the
        tokens' own order before they are added up, so that a sum's order does not depend on the other tokens.
        """
        num_tokens, per_token = routing.experts_TK.shape
        expert_A, order_A = routing.experts_TK.flatten().sort(stable=True)
        count_E = torch.bincount(expert_A, minlength=len(self.gate_up_proj))
        sorted_AD = self._compute(x_TD[order_A // per_token], count_E)
        output_AD = torch.empty_like(sorted_AD).index_copy(0, order_A, sorted_AD)
        weights_T1K = routing.weights_TK.to(x_TD.dtype)[:, None]
        return torch.bmm(weights_T1K, output_AD.unflatten(0, (num_tokens, per_token)))[:, 0]

    def _compute(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        return self._grouped(x_AD, count_E) if self._can_group(x_AD) else self._one_by_one(x_AD, count_E)

    def _can_group(self, x_AD: Tensor) -> bool:
        """Whether torch has a fast grouped product for this: rows of whole 16 bytes, on CUDA in bfloat16 only, and
        no gradients (its backward pass refuses some strides)."""
        aligned = all(size * x_AD.element_size() % 16 == 0 for size in self.down_proj.shape[1:])
        return aligned and not torch.is_grad_enabled() and (not x_AD.is_cuda or x_AD.dtype == torch.bfloat16)

    def _grouped(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """All experts in one product; nothing waits for the device."""
        ends_E = count_E.cumsum(0).int()
        gate, up = functional.grouped_mm(x_AD, self.gate_up_proj.transpose(1, 2), offs=ends_E).chunk(2, dim=-1)
        hidden_AF = functional.silu(gate) * up
        return functional.grouped_mm(hidden_AF, self.down_proj.transpose(1, 2), offs=ends_E)

    def _one_by_one(self, x_AD: Tensor, count_E: Tensor) -> Tensor:
        """One matrix product per expert that has tokens."""
        counts = count_E.tolist()
        outputs = []
        for expert, x_nD in enumerate(x_AD.split(counts)):
            if counts[expert]:
                gate, up = functional.linear(x_nD, self.gate_up_proj[expert]).chunk(2, dim=-1)
                outputs.append(functional.linear(functional.silu(gate) * up, self.down_proj[expert]))
        return torch.cat(outputs) if outputs else x_AD


class SparseMoE(nn.Module):
    """Routed experts, plus shared experts that see every token (one SwiGLU of their summed width)."""

    def __init__(
        self,
        hidden_size: int,
        num_experts: int,
        intermediate_size: int,
        rule: RoutingRule,
        *,
        expert_bias: bool = False,
        shared_intermediate_size: int = 0,
    ) -> None:
        super().__init__()
        self.gate = Router(hidden_size, num_experts, rule, expert_bias=expert_bias)
        self.experts = Experts(hidden_size, num_experts, intermediate_size)
        self.shared_experts = SwiGLU(hidden_size, shared_intermediate_size) if shared_intermediate_size else None

    def forward(self, x_TD: Tensor, block_T: Tensor | None = None) -> Tensor:
        """``block_T`` as for RoutingRule.choose."""
        output_TD: Tensor = self.experts(x_TD, self.gate(x_TD, block_T))
        if self.shared_experts is not None:
            output_TD = output_TD + self.shared_experts(x_TD)
        return output_TD
