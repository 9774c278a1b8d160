"""Rows in batches: padded by length, or packed."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.training.batches import Batch, Batcher, collate, first_fit
from engine.training.block_diffusion import BlockDiffusion
from engine.training.data import EncodedSample
from engine.training.noise import Blocks, NextToken, Objective, Row

MASK, END, LENGTH, TOKENS = 1, 0, 64, 128
SAMPLE = EncodedSample([2, 3], [4, 5, END])


def row(answer_len: int, seed: int, objective: Objective) -> Row:
    sample = EncodedSample([2, 3], [*range(10, 10 + answer_len), END])
    return objective.row(sample, MASK, END, np.random.default_rng(seed))


def batches(rows: list[Row], batcher: Batcher) -> list[Batch]:
    return [batch for each in rows for batch in batcher.add(each)]


@given(sizes=st.lists(st.integers(1, 9), max_size=20), capacity=st.integers(9, 20))
def test_first_fit_places_everything_once_and_never_too_much(sizes: list[int], capacity: int) -> None:
    bins = first_fit(sizes, capacity)
    assert sorted(index for share in bins for index in share) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in share) <= capacity for share in bins)
    free = [capacity - sum(sizes[index] for index in share) for share in bins]
    for place, share in enumerate(bins):
        assert all(room < sizes[share[0]] for room in free[:place]), "a bin was opened although another had room"


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    objective=st.sampled_from([BlockDiffusion(4), Blocks(4)]),
)
def test_packing_keeps_every_row_and_its_loss(lengths: list[int], objective: Objective) -> None:
    rows = [row(length, seed, objective) for seed, length in enumerate(lengths)]
    batcher = Batcher(TOKENS, END, (LENGTH,), packed=True)
    found = batches(rows, batcher)
    for filler in range(4):  # rows of more than half the length: each batch holds two, so those before are all out
        found += batches([row(26, 100 + filler, objective)], batcher)
    assert batcher.num_dropped == 0
    assert all(batch.tokens_RN.shape == (2, LENGTH) or len(batch.tokens_RN) == 1 for batch in found)
    losses = [np.sort(each.weights[each.weights > 0]) for each in rows]
    packed = np.concatenate([batch.weights_M.numpy() for batch in found])
    for weights in losses:
        assert np.isin(weights, packed).all()


def test_a_packed_batch_divides_by_the_sum_of_its_rows_normalisers() -> None:
    rows = [row(length, length, BlockDiffusion(4)) for length in (5, 9, 13)]
    batcher = Batcher(TOKENS, END, (LENGTH,), packed=True)
    assert batches(rows, batcher) == []
    (batch,) = batches([row(26, 9, BlockDiffusion(4))] * 2, batcher)
    assert batch.normaliser in (
        sum(each.loss_normaliser for each in rows),
        sum(each.loss_normaliser for each in rows) + row(26, 9, BlockDiffusion(4)).loss_normaliser,
    )


def test_samples_of_a_packed_row_do_not_see_each_other() -> None:
    rows = [row(5, seed, BlockDiffusion(4)) for seed in range(5)]
    batcher = Batcher(LENGTH, END, (LENGTH,), packed=True)
    (batch,) = batches(rows, batcher)
    assert batch.samples_RN is not None
    length = len(rows[0])
    assert LENGTH // length == 4
    mask = batch.mask_R1NN[0, 0]
    for place in range(4):
        own = slice(place * length, (place + 1) * length)
        assert not mask[own, : own.start].any()
        assert not mask[own, own.stop :].any()
    alone = next(iter(Batcher(length, END, (length,)).add(rows[0])))
    assert (mask[:length, :length] == alone.mask_R1NN[0, 0]).all()


def test_a_row_that_is_too_long_is_dropped_and_counted() -> None:
    for packed in (False, True):
        batcher = Batcher(TOKENS, END, (LENGTH,), packed=packed)
        assert batches([row(40, 0, BlockDiffusion(4))], batcher) == []
        assert batcher.num_dropped == 1


def test_experts_are_balanced_on_what_is_noised() -> None:
    noised, plain = row(5, 0, BlockDiffusion(4)), NextToken().row(SAMPLE, MASK, END, np.random.default_rng(0))
    batch = collate([noised, plain], LENGTH, END)
    routed = batch.routed_T.view(2, LENGTH)
    assert torch.equal(routed[0], batch.noised_RN[0])
    assert routed[0].sum() == len(noised) / 2
    assert routed[1].tolist() == [True] * len(plain) + [False] * (LENGTH - len(plain))
