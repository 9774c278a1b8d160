"""How the published loops keep keys and values between forwards.

Shape legend: B rows, T tokens of a row, S keys of a row, K key/value heads, D head dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Memory(ABC):
    """Keys and values of all layers, ``[B, K, S, D]`` each. ``keeps_rotated`` says whether keys are rotated once,
    before they are kept, or all of them again at each forward."""

    keeps_rotated: bool

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def join(self, layer: int, keys_BKTD: Tensor, values_BKTD: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """What queries at ``start`` and after it see: what is kept, and the new keys and values."""

    def mask(self, num_queries: int, num_keys: int) -> Tensor | None:
        """Which keys queries see; None: all."""
        return None


class Rewritten(Memory):
    """Fast-dLLM's dual cache: a forward over the whole canvas fills it, one over a block writes its positions anew."""

    keeps_rotated = False

    def join(self, layer: int, keys_BKTD: Tensor, values_BKTD: Tensor, start: int) -> tuple[Tensor, Tensor]:
        if layer not in self._layers:
            self._layers[layer] = keys_BKTD, values_BKTD
        else:
            index_T = torch.arange(start, start + keys_BKTD.shape[2])
            for kept, new in zip(self._layers[layer], (keys_BKTD, values_BKTD), strict=True):
                kept[:, :, index_T] = new
        return self._layers[layer]


class Growing(Memory):
    """SDAR's cache: keys and values of finished blocks, joined with those of the open one in a new tensor at each
    forward; kept only from forwards with ``stores``. ``block_length`` cuts the prompt's forward into its blocks."""

    keeps_rotated = True
    stores = False

    def __init__(self, block_length: int) -> None:
        super().__init__()
        self._block_length = block_length

    def join(self, layer: int, keys_BKTD: Tensor, values_BKTD: Tensor, start: int) -> tuple[Tensor, Tensor]:
        both = keys_BKTD, values_BKTD
        if layer in self._layers:
            kept = zip(self._layers[layer], both, strict=True)
            keys, values = (torch.cat(pair, dim=2) for pair in kept)
            both = keys, values
        if self.stores:
            self._layers[layer] = both
        return both

    def mask(self, num_queries: int, num_keys: int) -> Tensor | None:
        if num_queries <= self._block_length:
            return None
        block_S = torch.arange(num_keys) // self._block_length
        return block_S <= block_S[num_keys - num_queries :, None]
