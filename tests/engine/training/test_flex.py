"""The unwritten mask against the written-out one, pair by pair, and what attention makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.attention.dense import DenseAttention
from engine.training.batches import Batch, collate
from engine.training.block_diffusion import BlockDiffusion, pack
from engine.training.data import EncodedSample
from engine.training.flex import FlexAttention, flex_mask, pair_rule
from engine.training.noise import Blocks, Canvas, Objective

LENGTH = 160


def batch(objective: Objective, *, packed: bool) -> Batch:
    rng = np.random.default_rng(0)
    rows = [objective.row(EncodedSample([2, 3, 4], [*range(10, 10 + n), 0]), 1, 0, rng) for n in (2, 5, 7)]
    return collate([pack(rows[:2]), rows[2]] if packed else rows, LENGTH, padding_id=0)


CASES = pytest.mark.parametrize(
    ("objective", "packed"),
    [(BlockDiffusion(4), True), (BlockDiffusion(4), False), (Blocks(2), True), (Canvas(4), False)],
)


@CASES
def test_it_is_the_same_mask(objective: Objective, packed: bool) -> None:
    example = batch(objective, packed=packed)
    may_see = pair_rule(example.blocks_RN, example.noised_RN, example.samples_RN)
    places = torch.arange(LENGTH)
    for row in range(len(example.tokens_RN)):
        written = may_see(torch.tensor(row), torch.tensor(0), places[:, None], places[None, :])
        assert torch.equal(written, example.mask_R1NN[row, 0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@CASES
def test_it_is_the_same_attention(objective: Objective, packed: bool) -> None:
    """Forward alone: torch has no backward pass of the operator for a CPU."""
    example = batch(objective, packed=packed)
    rows = len(example.tokens_RN)
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(rows * LENGTH, 4, 16, generator=generator)
    keys, values = (torch.randn(rows * LENGTH, 2, 16, generator=generator) for _ in range(2))
    mask = flex_mask(example.blocks_RN, example.noised_RN, example.samples_RN)
    flex = FlexAttention(rows, LENGTH, mask).attend(0, queries, keys, values)
    dense = DenseAttention(rows, LENGTH, example.mask_R1NN).attend(0, queries, keys, values)
    torch.testing.assert_close(flex, dense)
