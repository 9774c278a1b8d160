"""Cross entropy of the noised positions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def weighted_cross_entropy(logits_MV: Tensor, targets_M: Tensor, weights_M: Tensor, normaliser: float) -> Tensor:
    """Weighted sum over ``normaliser``, in float32. With weights n / k (or 1 / p) and the number of weighed tokens as
    the normaliser it is an unbiased estimate of the masked-diffusion bound per token."""
    losses_M = functional.cross_entropy(logits_MV.float(), targets_M, reduction="none")
    return (losses_M * weights_M).sum() / normaliser
