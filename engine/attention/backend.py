"""The one interface between a model and whatever stores and attends K/V.

Shape legend: T tokens of a forward (all rows concatenated), H query heads, K key/value heads, D head dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class AttentionBackend(ABC):
    """Attention of one forward pass. A model calls :meth:`attend` once per layer, in layer order.

    The model hands over rotated queries and keys; it knows nothing of slots, pages, rows or masks. A backend is made
    (or re-bound) for each forward with that forward's rows.
    """

    @abstractmethod
    def attend(self, layer: int, queries_THD: Tensor, keys_TKD: Tensor, values_TKD: Tensor) -> Tensor:
        """Return the attention output ``[T, H, D]`` (scale ``D ** -0.5``; grouped-query when K < H)."""

    @property
    def row_T(self) -> Tensor | None:
        """Number of the row that each token belongs to, from 0; None where a backend has no rows. A row of a
        block-causal model is a diffusion block."""
        return None
