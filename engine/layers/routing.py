"""Which experts compute a token, and with what weights.

Shape legend: T tokens of a forward, E experts, K experts per token, G expert groups, N diffusion blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Routing:
    """The chosen experts ``[T, K]`` (distinct for each token, in no particular order) and their float32 weights."""

    experts_TK: Tensor
    weights_TK: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule(ABC):
    """A family's way from router logits to a Routing: stateless, one instance per model, all in float32.

    A token's choice depends on nothing but its own logits, except where ``per_block`` says that the tokens of a
    diffusion block decide together.
    """

    experts_per_token: int

    @property
    def per_block(self) -> bool:
        return False

    @abstractmethod
    def choose(self, logits_TE: Tensor, bias_E: Tensor | None, block_T: Tensor | None) -> Routing:
        """``bias_E`` shifts the scores that experts are chosen by. ``block_T`` numbers the diffusion block of each
        token, from 0 to at most T - 1; rules that are not ``per_block`` leave it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftmaxRouting(RoutingRule):
    """Probabilities over all experts; ``normalize`` makes the weights of the chosen ones sum to 1.

    Source: LLaDA-MoE (never normalised) and Qwen3-MoE, which SDAR-MoE follows (``norm_topk_prob``).
    """

    normalize: bool = False

    def choose(self, logits_TE: Tensor, bias_E: Tensor | None, block_T: Tensor | None) -> Routing:
        assert bias_E is None, "softmax routers have no expert bias"
        weights_TK, experts_TK = logits_TE.softmax(-1).topk(self.experts_per_token, dim=-1)
        if self.normalize:
            weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
        return Routing(experts_TK, weights_TK)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmoidRouting(RoutingRule):
    """Independent scores of the experts; the bias decides which are chosen, never how much they weigh.

    Only experts of the ``groups_per_token`` best of ``num_groups`` equal groups can be chosen; a group is as good as
    the sum of its two best biased scores. Weights are the scores as shares of their sum, times ``scale``. Source:
    LLaDA2.0 (arXiv 2512.15745), after DeepSeek-V3 (arXiv 2412.19437, section 2.1.2).
    """

    num_groups: int = 1
    groups_per_token: int = 1
    scale: float = 1.0

    def choose(self, logits_TE: Tensor, bias_E: Tensor | None, block_T: Tensor | None) -> Routing:
        scores_TE = logits_TE.sigmoid()
        biased_TE = scores_TE if bias_E is None else scores_TE + bias_E
        experts_TK = self._admissible(biased_TE, block_T).topk(self.experts_per_token, dim=-1).indices
        weights_TK = scores_TE.gather(-1, experts_TK)
        return Routing(experts_TK, weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20) * self.scale)

    def _admissible(self, biased_TE: Tensor, block_T: Tensor | None) -> Tensor:
        """The biased scores, minus infinity where an expert may not be chosen."""
        if self.groups_per_token == self.num_groups:
            return biased_TE
        biased_TGe = biased_TE.view(len(biased_TE), self.num_groups, -1)
        group_score_TG = biased_TGe.topk(2, dim=-1).values.sum(-1)
        best_TG = group_score_TG.topk(self.groups_per_token, dim=-1).indices
        allowed_TG = torch.zeros_like(group_score_TG, dtype=torch.bool).scatter_(-1, best_TG, True)
        return biased_TGe.masked_fill(~allowed_TG[..., None], -torch.inf).flatten(-2)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRouting(SigmoidRouting):
    """Each diffusion block admits ``capacity`` experts, those with the best biased score of any of its tokens (the
    lower id where scores are equal); a token's experts are chosen among them. Source: LLaDA2.2.
    """

    capacity: int

    @property
    def per_block(self) -> bool:
        return True

    def _admissible(self, biased_TE: Tensor, block_T: Tensor | None) -> Tensor:
        assert block_T is not None, "block routing needs to know the blocks"
        best_NE = torch.full_like(biased_TE, -torch.inf)  # as many blocks as tokens at most: no count has to be known
        best_NE.scatter_reduce_(0, block_T[:, None].expand_as(biased_TE), biased_TE, "amax")
        admitted = best_NE.sort(dim=-1, descending=True, stable=True).indices[:, : self.capacity]
        allowed_NE = torch.zeros_like(best_NE, dtype=torch.bool).scatter_(-1, admitted, True)
        return biased_TE.masked_fill(~allowed_NE[block_T], -torch.inf)
