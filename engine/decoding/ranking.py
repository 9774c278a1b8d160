"""Choosing the best positions of each row, with ties to the smaller position.

Shape legend: N rows, B positions. Scores of eligible positions are finite.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rank_positions(scores_NB: Tensor, eligible_NB: Tensor) -> Tensor:
    """Rank of each position in its row: 0 is the highest eligible score; ineligible ones come last."""
    keys_NB = scores_NB.masked_fill(~eligible_NB, -torch.inf)
    order_NB = torch.sort(keys_NB, dim=1, descending=True, stable=True).indices
    places_NB = torch.arange(scores_NB.shape[1], device=scores_NB.device).expand_as(order_NB)
    return torch.empty_like(order_NB).scatter_(1, order_NB, places_NB)


def top_k(scores_NB: Tensor, eligible_NB: Tensor, k_N: Tensor) -> Tensor:
    """Mask of the ``k_N`` highest eligible scores of each row (fewer where fewer are eligible)."""
    return (rank_positions(scores_NB, eligible_NB) < k_N[:, None]) & eligible_NB


def best(scores_NB: Tensor, eligible_NB: Tensor) -> Tensor:
    """Mask of the highest eligible score of each row; nothing where nothing is eligible."""
    keys_NB = scores_NB.masked_fill(~eligible_NB, -torch.inf)
    first_N1 = keys_NB.argmax(dim=1, keepdim=True)
    return torch.zeros_like(eligible_NB).scatter_(1, first_N1, True) & eligible_NB
