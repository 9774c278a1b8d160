"""Storage of keys and values at physical positions."""

from __future__ import annotations

import torch

from engine.cache.kv_cache import KVCache


def test_what_is_stored_is_there_and_nowhere_else() -> None:
    cache = KVCache(2, 3, 4, 1, 2, torch.float32, torch.device("cpu"))
    cache.keys.zero_()
    cache.values.zero_()
    physical = torch.tensor([5, 0, 11])
    keys = torch.arange(1.0, 7.0).view(3, 1, 2)

    cache.store(1, physical, keys, -keys)

    assert cache.keys.shape == cache.values.shape == (2, 12, 1, 2)
    assert torch.equal(cache.keys[1][physical], keys)
    assert torch.equal(cache.values[1][physical], -keys)
    assert cache.keys.abs().sum() == keys.sum()
    assert not cache.keys[0].any()
