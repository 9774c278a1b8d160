"""Rows over paged K/V against dense references. Weights are float64; norms and softmax round to float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend
from engine.attention.sdpa import SDPAAttention
from engine.cache.kv_cache import KVCache
from engine.models.spec import DiffusionLM
from tests.helpers.networks import CachedNetwork, block_causal_mask, dense_hidden, forward, make_network, rows

PAGES = {
    "whole slot": ([[0], [1]], 24),
    "adjacent pages": ([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]], 4),
    "fragmented pages": ([[7, 2, 11, 0, 5, 3], [1, 9, 4, 10, 6, 8]], 4),
    "pages that do not divide": ([[3, 0, 5, 2, 1], [4, 6, 9, 8, 7]], 5),
}


@pytest.fixture(scope="module")
def causal() -> DiffusionLM:
    return make_network("block_causal")


@pytest.fixture(scope="module")
def bidirectional() -> DiffusionLM:
    return make_network("bidirectional")


@pytest.fixture(params=sorted(PAGES))
def pages(request: pytest.FixtureRequest) -> tuple[list[list[int]], int]:
    return PAGES[request.param]


def tokens(length: int, seed: int) -> Tensor:
    return torch.randint(0, 48, (length,), generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_block_rows_are_the_block_causal_mask(causal: DiffusionLM, pages: tuple[list[list[int]], int]) -> None:
    """Prompt and first step in one forward, for two sequences of different length and block length."""
    net = CachedNetwork.make(causal, *pages)
    first, second = tokens(20, 1), tokens(9, 2)
    net.canvas[0, :20], net.canvas[1, :9] = first, second
    plan = rows(*((0, i, i + 4, 0, i + 4) for i in range(0, 20, 4)), *((1, i, i + 3, 0, i + 3) for i in (0, 3, 6)))

    hidden = net.run(plan)

    close(torch.cat(hidden[:5]), dense_hidden(causal, first, block_causal_mask(20, 4)))
    close(torch.cat(hidden[5:]), dense_hidden(causal, second, block_causal_mask(9, 3)))


def test_chunks_and_fused_commits_equal_the_dense_mask(causal: DiffusionLM, pages: tuple[list[list[int]], int]) -> None:
    """Prefill in two chunks; then two steps of a block; then its commit together with the next block's first step."""
    net = CachedNetwork.make(causal, *pages)
    canvas = tokens(16, 3)
    net.canvas[0, :16] = canvas
    net.run(rows((0, 0, 4, 0, 4)))
    masked = canvas.clone()
    masked[8:] = 49
    net.canvas[0, :16] = masked
    step = net.run(rows((0, 4, 8, 0, 8), (0, 8, 12, 0, 12)))[1]
    close(step, dense_hidden(causal, masked, block_causal_mask(16, 4))[8:12])
    masked[9] = canvas[9]
    net.canvas[0, :16] = masked
    close(net.run(rows((0, 8, 12, 0, 12)))[0], dense_hidden(causal, masked, block_causal_mask(16, 4))[8:12])
    masked[8:12] = canvas[8:12]
    net.canvas[0, :16] = masked
    commit, step = net.run(rows((0, 8, 12, 0, 12), (0, 12, 16, 0, 16)))
    expected = dense_hidden(causal, masked, block_causal_mask(16, 4))
    close(commit, expected[8:12])
    close(step, expected[12:16])


class _Overlay(AttentionBackend):
    """An independent prefix/dual cache: dense K/V of the last refresh, overwritten in the span that is computed."""

    def __init__(self, keys: list[Tensor], values: list[Tensor], start: int, end: int) -> None:
        self._keys, self._values = keys, values
        self._span = slice(start, end)

    def attend(self, layer: int, queries_THD: Tensor, keys_TKD: Tensor, values_TKD: Tensor) -> Tensor:
        if layer == len(self._keys):
            self._keys.append(keys_TKD.clone())
            self._values.append(values_TKD.clone())
        self._keys[layer][self._span], self._values[layer][self._span] = keys_TKD, values_TKD
        keys, values = (x[layer].repeat_interleave(2, dim=1) for x in (self._keys, self._values))
        scores = torch.einsum("qhd,khd->hqk", queries_THD, keys) / queries_THD.shape[-1] ** 0.5
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)


@pytest.mark.parametrize(("start", "end"), [(8, 12), (8, 20), (5, 14)])
def test_inner_steps_equal_a_dense_overlay_with_frozen_keys(
    bidirectional: DiffusionLM, pages: tuple[list[list[int]], int], start: int, end: int
) -> None:
    """Dual, prefix and vicinity rows: everything outside the span keeps the K/V of the refresh."""
    net = CachedNetwork.make(bidirectional, *pages)
    canvas = tokens(20, 4)
    canvas[8:] = 49
    net.canvas[1, :20] = canvas
    keys: list[Tensor] = []
    values: list[Tensor] = []
    refresh = net.run(rows((1, 0, 20, 0, 20)))[0]
    close(refresh, dense_hidden(bidirectional, canvas))
    close(refresh, forward(bidirectional, canvas, torch.arange(20), _Overlay(keys, values, 0, 20)))
    for filled in (9, 8, 11):
        canvas[filled] = filled
        net.canvas[1, :20] = canvas
        inner = net.run(rows((1, start, end, 0, 20)))[0]
        overlay = _Overlay(keys, values, start, end)
        close(inner, forward(bidirectional, canvas[start:end], torch.arange(start, end), overlay))
    fresh = dense_hidden(bidirectional, canvas)[start:end]
    assert (inner - fresh).abs().max() > 1e-3, "the cache is an approximation, or this test proves nothing"


def test_a_window_of_keys_hides_the_rest(bidirectional: DiffusionLM, pages: tuple[list[list[int]], int]) -> None:
    net = CachedNetwork.make(bidirectional, *pages)
    canvas = tokens(20, 5)
    net.canvas[0, :20] = canvas
    hidden = net.run(rows((0, 6, 15, 6, 15)))[0]
    window = torch.zeros(20, 20, dtype=torch.bool)
    window[6:15, 6:15] = True
    window.fill_diagonal_(fill_value=True)
    close(hidden, dense_hidden(bidirectional, canvas, window)[6:15])


def test_page_layouts_agree_and_neighbours_do_not_matter(causal: DiffusionLM) -> None:
    results = []
    for table, page_size in PAGES.values():
        net = CachedNetwork.make(causal, table, page_size)
        net.canvas[0, :8], net.canvas[1, :20] = tokens(8, 6), tokens(20, 7)
        together = net.run(rows((0, 0, 4, 0, 4), (0, 4, 8, 0, 8), (1, 0, 20, 0, 20)))
        alone = net.run(rows((1, 0, 20, 0, 20)))
        close(together[2], alone[0])
        results.append(torch.cat(together))
    for other in results[1:]:
        close(other, results[0])


def test_rows_store_at_the_pages_of_their_slot_only() -> None:
    cache = KVCache(1, 4, 2, 1, 1, torch.float64, torch.device("cpu"))
    cache.keys.zero_()
    table = np.array([[3, 0], [1, -1]])
    attention = SDPAAttention(cache, rows((0, 1, 3, 0, 3), (1, 0, 1, 0, 1)), table)
    fresh = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(3, 1, 1)
    attention.attend(0, fresh, fresh, fresh)
    assert cache.keys[0].flatten().tolist() == [2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 1.0]
