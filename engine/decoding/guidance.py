"""Classifier-free guidance: logits of a request and of its twin whose prompt is masked, as one.

Shape legend: M masked positions of the decoded blocks, V logit columns of this rank.
"""

from __future__ import annotations

from torch import Tensor


def guide(conditional_MV: Tensor, unconditional_MV: Tensor, scale_M: Tensor) -> Tensor:
    """Classifier-free guidance: unconditional + (scale + 1) * (conditional - unconditional).

    The unconditional logits come from the same canvas with the prompt masked (LLaDA, generate.py, ``cfg_scale``).
    """
    return unconditional_MV + (scale_M[:, None] + 1) * (conditional_MV - unconditional_MV)
