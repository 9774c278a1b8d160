"""The routed experts of a mixture as two stacked matrices.

Shape legend: T tokens of a forward, D hidden size, E experts of this rank, K experts per token, F their width on this
rank, A assignments of a token to an expert, R those of them that are computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.layers.division import Division
from engine.layers.routing import Routing
from engine.parallel import ALONE, Part

MOST_ARITHMETIC = 4
"""Times the arithmetic of the chosen experts that computing all of them may cost in training."""


class Experts(nn.Module):
    """SwiGLU networks: gate and up packed in ``gate_up_proj`` ``[E, 2F, D]``, ``down_proj`` ``[E, D, F]``.

    This rank has the experts ``[first, end)`` of ``num_experts`` that are its ``part``, and of the width of each its
    ``width_part``. In a forward each expert's weights are read once, however many tokens and blocks it is chosen by.
    """

    def __init__(
        self,
        hidden_size: int,
        num_experts: int,
        intermediate_size: int,
        part: Part = ALONE.expert_part,
        width_part: Part = ALONE.expert_width_part,
    ) -> None:
        super().__init__()
        self.num_experts, self.intermediate_size = num_experts, intermediate_size
        self.first, self.end = part.span(num_experts)
        here = self.end - self.first
        low, high = width_part.span(intermediate_size)
        self.gate_up_proj = nn.Parameter(torch.empty(here, 2 * (high - low), hidden_size))
        self.down_proj = nn.Parameter(torch.empty(here, hidden_size, high - low))
        experts = Division(0, num_experts, ((self.first, self.end),))
        gate_up = ((low, high), (intermediate_size + low, intermediate_size + high))
        self.divisions: Mapping[str, Sequence[Division]] = {
            "gate_up_proj": (experts, Division(1, 2 * intermediate_size, gate_up)),
            "down_proj": (experts, Division(2, intermediate_size, ((low, high),))),
        }

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        """Weighted sum of the chosen experts' outputs ``[T, D]``, as far as they are this rank's.

        Assignments are sorted by expert, those of other ranks last, so that each expert's tokens are adjacent. In
        training, where most experts are chosen anyway, all of them are computed instead.
        """
        if self._computes_all(routing.experts_TK.shape[1]):
            return self._all(x_TD, routing)
        local_A = self._local(routing.experts_TK.flatten())
        expert_A, order_A = local_A.sort(stable=True)
        end_E = self.ends(expert_A)
        order_R = order_A if self._is_whole or self._keeps_rest(x_TD) else order_A[: int(end_E[-1])]
        sorted_RD = self.compute(x_TD[order_R // routing.experts_TK.shape[1]], end_E)
        return combine(sorted_RD, order_R, routing.weights_TK)

    def ends(self, sorted_A: Tensor) -> Tensor:
        """Where the assignments of each expert of this rank end, ``[E]``; nothing waits for the device."""
        expert_E = torch.arange(len(self.down_proj), device=sorted_A.device)
        return torch.searchsorted(sorted_A, expert_E, right=True)

    def compute(self, x_RD: Tensor, end_E: Tensor) -> Tensor:
        """Outputs of rows that are sorted by expert and end at ``end_E``."""
        return self._grouped(x_RD, end_E) if self._can_group(x_RD) else self._one_by_one(x_RD, end_E)

    def _local(self, expert_A: Tensor) -> Tensor:
        """Numbers of this rank's experts from 0; E for all others."""
        if self._is_whole:
            return expert_A
        is_here_A = (expert_A >= self.first) & (expert_A < self.end)
        return torch.where(is_here_A, expert_A - self.first, len(self.down_proj))

    @property
    def _is_whole(self) -> bool:
        return len(self.down_proj) == self.num_experts

    def _computes_all(self, experts_per_token: int) -> bool:
        """With gradients no grouped product can be used (see :meth:`_can_group`), and the products one by one wait for
        the device in every layer and cannot be compiled: a few times the arithmetic is sooner done."""
        return torch.is_grad_enabled() and self._is_whole and self.num_experts <= MOST_ARITHMETIC * experts_per_token

    def _all(self, x_TD: Tensor, routing: Routing) -> Tensor:
        """Every expert of every token, with the weight 0 where it is not chosen: two products of fixed shape."""
        weights_TE = x_TD.new_zeros(len(x_TD), self.num_experts)
        weights_TE = weights_TE.scatter(1, routing.experts_TK, routing.weights_TK.to(x_TD.dtype))
        packed_TEF = functional.linear(x_TD, self.gate_up_proj.flatten(0, 1)).unflatten(1, (self.num_experts, -1))
        gate_TEF, up_TEF = packed_TEF.chunk(2, dim=-1)
        hidden_TEF = functional.silu(gate_TEF) * up_TEF * weights_TE[:, :, None]
        output_TD: Tensor = hidden_TEF.flatten(1) @ self.down_proj.transpose(1, 2).flatten(0, 1)
        return output_TD

    def _keeps_rest(self, x_TD: Tensor) -> bool:
        """Whether rows of other ranks' experts stay in, so that shapes do not depend on the routing and the host need
        not wait for it. On a CPU there is nothing to wait for, and they are cut off."""
        return x_TD.is_cuda and self._can_group(x_TD)

    def groups(self, dtype: torch.dtype, *, on_cuda: bool) -> bool:
        """Whether torch has a fast grouped product for this: rows of whole 16 bytes, on CUDA in bfloat16 only. Without
        it the host has to know how many rows each expert has."""
        aligned = all(size * dtype.itemsize % 16 == 0 for size in self.down_proj.shape[1:])
        return aligned and (not on_cuda or dtype == torch.bfloat16)

    def _can_group(self, x_RD: Tensor) -> bool:
        """Without gradients only: the backward pass of a grouped product refuses some strides."""
        return not torch.is_grad_enabled() and self.groups(x_RD.dtype, on_cuda=x_RD.is_cuda)

    def _grouped(self, x_RD: Tensor, end_E: Tensor) -> Tensor:
        """All experts in one product; nothing waits for the device."""
        ends = end_E.int()
        gate, up = functional.grouped_mm(x_RD, self.gate_up_proj.transpose(1, 2), offs=ends).chunk(2, dim=-1)
        hidden_RF = functional.silu(gate) * up
        output_RD = functional.grouped_mm(hidden_RF, self.down_proj.transpose(1, 2), offs=ends)
        if self._is_whole or not self._keeps_rest(x_RD):
            return output_RD
        is_computed_R = torch.arange(len(x_RD), device=x_RD.device) < end_E[-1]
        return output_RD.where(is_computed_R[:, None], 0)  # the product leaves rows beyond the last end uninitialised

    def _one_by_one(self, x_RD: Tensor, end_E: Tensor) -> Tensor:
        """One matrix product per expert that has tokens."""
        outputs, start = [], 0
        for expert, end in enumerate(end_E.tolist()):
            if start < end:
                gate, up = functional.linear(x_RD[start:end], self.gate_up_proj[expert]).chunk(2, dim=-1)
                outputs.append(functional.linear(functional.silu(gate) * up, self.down_proj[expert]))
            start = end
        return torch.cat(outputs) if outputs else x_RD


def combine(sorted_RD: Tensor, order_R: Tensor, weights_TK: Tensor) -> Tensor:
    """Weighted sums over each token's assignments ``[T, D]``; ``order_R`` says which assignment each row is, and those
    without a row count as zeros.

    Outputs are put back into the tokens' own order before they are added up, so that a sum's order does not depend on
    the other tokens.
    """
    num_tokens, per_token = weights_TK.shape
    shape = (num_tokens * per_token, sorted_RD.shape[1])
    complete = len(sorted_RD) == shape[0]
    output_AD = sorted_RD.new_empty(shape) if complete else sorted_RD.new_zeros(shape)
    output_AD = output_AD.index_copy(0, order_R, sorted_RD)
    weights_T1K = weights_TK.to(sorted_RD.dtype)[:, None]
    return torch.bmm(weights_T1K, output_AD.unflatten(0, (num_tokens, per_token)))[:, 0]
