"""Real tiny networks, with and without a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend
from engine.attention.dense import DenseAttention
from engine.attention.sdpa import SDPAAttention
from engine.cache.kv_cache import KVCache
from engine.cache.policy import IntArray
from engine.models.registry import model_family
from engine.models.spec import DiffusionLM, ModelSpec
from engine.plan import Rows

ARCHITECTURES = {"bidirectional": "LLaDAModelLM", "block_causal": "SDARForCausalLM"}


def make_network(pattern: str, seed: int = 0) -> DiffusionLM:
    """Two layers with grouped queries (4 heads on 2), random weights in float64."""
    spec = ModelSpec(
        architecture=ARCHITECTURES[pattern],
        attention=pattern,  # type: ignore[arg-type]
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        rope_theta=1e4,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        attention_bias=False,
        mask_token_id=49,
        stop_token_ids=frozenset({48}),
        block_length=4,
    )
    network = model_family(spec.architecture).model_class()(spec).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise * 0.3 if parameter.dim() > 1 else 1 + 0.1 * noise)
    return network.requires_grad_(False).eval()


def dense_hidden(network: DiffusionLM, tokens_L: Tensor, mask_LL: Tensor | None = None) -> Tensor:
    """Hidden states ``[L, D]`` of one sequence without any cache."""
    return forward(network, tokens_L, torch.arange(len(tokens_L)), DenseAttention(1, len(tokens_L), mask_LL))


def forward(network: DiffusionLM, tokens_T: Tensor, positions_T: Tensor, attention: AttentionBackend) -> Tensor:
    hidden_TD: Tensor = network(network.embed(tokens_T), positions_T, attention)
    return hidden_TD


def block_causal_mask(length: int, block_length: int) -> Tensor:
    block_L = torch.arange(length) // block_length
    return block_L[:, None] >= block_L[None, :]


def rows(*spans: tuple[int, int, int, int, int]) -> Rows:
    """Rows from (slot, q_start, q_end, kv_start, kv_end)."""
    return Rows(*(np.array(column, np.int64) for column in zip(*spans, strict=True)))


@dataclass(slots=True)
class CachedNetwork:
    """A network with K/V pages and canvases; memory that nobody wrote holds NaN."""

    network: DiffusionLM
    page_table: IntArray
    page_size: int
    canvas: Tensor
    cache: KVCache

    @classmethod
    def make(cls, network: DiffusionLM, page_table: Sequence[Sequence[int]], page_size: int) -> CachedNetwork:
        table = np.array(page_table, np.int64)
        spec = network.spec
        cache = KVCache(
            spec.num_layers,
            int(table.max()) + 1,
            page_size,
            network.num_kv_heads,
            spec.head_dim,
            next(network.parameters()).dtype,
            torch.device("cpu"),
        )
        cache.keys.fill_(torch.nan)
        cache.values.fill_(torch.nan)
        canvas = torch.zeros((len(table), table.shape[1] * page_size), dtype=torch.int64)
        return cls(network, table, page_size, canvas, cache)

    def run(self, plan: Rows) -> list[Tensor]:
        """Hidden states of each row."""
        slot_T, position_T = (torch.from_numpy(array) for array in plan.tokens())
        attention = SDPAAttention(self.cache, plan, self.page_table)
        hidden_TD = forward(self.network, self.canvas[slot_T, position_T], position_T, attention)
        return list(hidden_TD.split((plan.q_end_R - plan.q_start_R).tolist()))
