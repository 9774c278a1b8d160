"""Cross entropy of the noised positions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def weighted_cross_entropy(logits_MV: Tensor, targets_M: Tensor, weights_M: Tensor) -> Tensor:
    """Weighted mean, in float32; weights n / k make it an unbiased estimate of the masked-diffusion bound per token."""
    losses_M = functional.cross_entropy(logits_MV.float(), targets_M, reduction="none")
    return (losses_M * weights_M).sum() / weights_M.sum()
