"""How far freshly computed K/V have moved from the stored ones.

Shape legend: T tokens of a forward, M measured ones, N decided blocks, K key/value heads of a rank, D head dimension,
L layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.parallel import ALONE, Group


class DriftMeter:
    """Owns what one forward tells of its blocks' drift.

    ``token_M`` are the measured tokens of the forward and ``block_M`` the blocks that they stand for. Each rank of
    ``group`` observes its own heads. Sums are in float64, which no order of additions can tell apart in float32.
    """

    def __init__(self, token_M: Tensor, block_M: Tensor, num_blocks: int, group: Group = ALONE.tensor) -> None:
        self.token_M = token_M
        self._block_M = block_M
        self._num_blocks = num_blocks
        self._group = group
        self._products: list[Tensor] = []

    def observe(self, stored: tuple[Tensor, Tensor], fresh: tuple[Tensor, Tensor]) -> None:
        """Compare keys and values ``[M, K, D]`` of one layer."""
        for before_MKD, now_MKD in zip(stored, fresh, strict=True):
            before_MC, now_MC = before_MKD.flatten(1).double(), now_MKD.flatten(1).double()
            pairs = ((before_MC, now_MC), (before_MC, before_MC), (now_MC, now_MC))
            self._products.append(torch.stack([(one_MC * other_MC).sum(1) for one_MC, other_MC in pairs]))

    def drift(self) -> Tensor:
        """The mean of 1 - cosine over a block's measured positions, of keys or values whichever moved more, in the
        layer where they moved most; 0 where nothing is measured. ``[N]``, after the last layer, asked for by every
        rank."""
        both, before, now = self._group.all_reduce(torch.stack(self._products, dim=1))  # each [2L, M]
        cosine = both / (before * now).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
        total = cosine.new_zeros((len(cosine), self._num_blocks)).index_add_(1, self._block_M, 1.0 - cosine)
        count_N = cosine.new_zeros(self._num_blocks).index_add_(0, self._block_M, torch.ones_like(cosine[0]))
        mean: Tensor = total / count_N.clamp(min=1)
        return mean.amax(0).clamp(min=0).float()
