"""The padded reference: grouped queries, masks, batches."""

from __future__ import annotations

import torch
from torch.nn import functional

from engine.attention.dense import DenseAttention


def test_it_is_scaled_dot_product_attention_per_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn((6, heads, 8), generator=generator, dtype=torch.float64) for heads in (4, 2, 2)
    )
    mask = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])

    actual = DenseAttention(2, 3, mask).attend(0, queries, keys, values)

    for sequence in (slice(0, 3), slice(3, 6)):
        q, k, v = (x[sequence].transpose(0, 1)[None] for x in (queries, keys, values))
        expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        torch.testing.assert_close(actual[sequence], expected[0].transpose(0, 1), atol=1e-6, rtol=0)
