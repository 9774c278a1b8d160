"""Objectives: what is masked, what is weighed, and that no target leaks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from engine.training.batches import collate
from engine.training.block_diffusion import BlockDiffusion, pack
from engine.training.data import EncodedSample
from engine.training.noise import Blocks, Canvas, NextToken, Objective, Row, attention_mask

MASK, END = 1, 0
SAMPLE = EncodedSample([2, 3, 100, 101, 102, 4], [200, 201, 202, 203, 204, END])
OBJECTIVES = [Blocks(1), Blocks(4), Blocks(8), Blocks(1, True), Blocks(8, True), Canvas(4), Canvas(32), Canvas(None)]


def draw(objective: Objective, seed: int = 0) -> Row:
    return objective.row(SAMPLE, MASK, END, np.random.default_rng(seed))


def allowed(row: Row) -> np.ndarray:
    mask = attention_mask(torch.from_numpy(row.blocks)[None], torch.from_numpy(row.noised)[None])
    return mask[0, 0].numpy()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_loss_is_on_masked_answer_tokens_only(objective: Objective) -> None:
    for seed in range(20):
        row = draw(objective, seed)
        weighed = row.weights > 0
        assert weighed.any()
        assert (row.tokens[weighed] == MASK).all()
        assert (row.positions[weighed] >= len(SAMPLE.prompt)).all()
        full = np.array(SAMPLE.prompt + SAMPLE.answer + [END] * 200)
        assert (row.targets[weighed] == full[row.positions[weighed]]).all()
        shown = row.tokens != MASK
        assert (row.tokens[shown] == full[row.positions[shown]]).all()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_no_masked_position_sees_its_own_token(objective: Objective) -> None:
    for seed in range(5):
        row, sees = draw(objective, seed), allowed(draw(objective, seed))
        for query in np.flatnonzero(row.weights > 0):
            seen = np.flatnonzero(sees[query] & (row.positions == row.positions[query]))
            assert (row.tokens[seen] == MASK).all()


def test_blocks_of_one_mask_every_answer_token_and_see_all_before() -> None:
    row = draw(Blocks(1))
    noised = row.noised.sum()
    assert noised == len(SAMPLE.answer)
    assert (row.weights[:noised] == 1).all()
    sees = allowed(row)
    for query in range(noised):
        positions = row.positions[sees[query] & ~row.noised]
        assert sorted(positions) == list(range(len(SAMPLE.prompt) + query))


def test_blocks_count_from_position_zero_and_the_prompt_tail_stays_clean() -> None:
    row = draw(Blocks(4))
    assert list(row.positions[row.noised]) == list(range(4, 12))
    assert list(row.tokens[:2]) == SAMPLE.prompt[4:]
    assert allowed(row)[0, row.noised].sum() == 4
    assert sorted(row.positions[allowed(row)[0] & ~row.noised]) == [0, 1, 2, 3]


def test_current_canvas_block_has_decided_tokens_before_and_masks_after() -> None:
    starts = set()
    for seed in range(40):
        row = draw(Canvas(4), seed)
        weighed = row.positions[row.weights > 0]
        start = len(SAMPLE.prompt) + (weighed[0] - len(SAMPLE.prompt)) // 4 * 4
        starts.add(int(start))
        assert (row.tokens[start + 4 :] == MASK).all()
        assert (row.tokens[:start] != MASK).all()
        assert allowed(row).all()
    assert starts == {6, 10}


def test_weights_are_an_unbiased_count_of_the_candidates() -> None:
    objective = Blocks(8, prompt_is_block=True, tail_weight=1.0)
    total = np.mean([draw(objective, seed).weights.sum() for seed in range(200)])
    assert total == pytest.approx(8.0)


def test_padding_sees_itself_and_is_seen_by_nothing() -> None:
    batch = collate([draw(Canvas(None))], 128, END)
    length = len(draw(Canvas(None)))
    assert not batch.mask_R1NN[0, 0, :length, length:].any()
    assert torch.equal(batch.mask_R1NN[0, 0, length:, :].nonzero()[:, 1], torch.arange(length, 128))


@pytest.mark.parametrize("stage", ["cpt", "sft"])
def test_block_diffusion_trains_whole_blocks_and_counts_what_it_trains(stage: Literal["cpt", "sft"]) -> None:
    for seed in range(20):
        row = BlockDiffusion(4, stage).row(SAMPLE, MASK, END, np.random.default_rng(seed))
        first = len(SAMPLE.prompt) if stage == "sft" else 0
        assert len(row) == 2 * 12
        assert row.normaliser == 12 - first
        masked = np.flatnonzero(row.weights)
        assert len(masked)
        assert (row.tokens[masked] == MASK).all()
        assert (row.positions[masked] >= first).all()
        assert row.noised[masked].all()
        (weight,) = set(row.weights[masked].tolist())
        assert 1 <= weight <= 1000
        sees = allowed(row)
        for query in masked:
            assert (row.positions[sees[query] & ~row.noised] < row.positions[query] // 4 * 4).all()


def test_next_token_predicts_what_follows_and_sees_nothing_of_it() -> None:
    row = draw(NextToken(prompt_weight=0.5))
    full = [*SAMPLE.prompt, *SAMPLE.answer]
    assert row.tokens.tolist() == full[:-1]
    assert row.targets.tolist() == full[1:]
    assert row.weights.tolist() == [0.5] * 5 + [1.0] * 6
    assert (allowed(row) == np.tri(len(row), dtype=bool)).all()


def test_packed_samples_do_not_see_each_other() -> None:
    rows = [BlockDiffusion(4).row(SAMPLE, MASK, END, np.random.default_rng(seed)) for seed in range(3)]
    packed = pack(rows)
    batch = collate([packed], len(packed) + 5, END)
    mask = batch.mask_R1NN[0, 0].numpy()
    for index, row in enumerate(rows):
        own = slice(24 * index, 24 * (index + 1))
        assert (mask[own, own] == allowed(row)).all()
        assert mask[own].sum() == allowed(row).sum()
    assert batch.normaliser == sum(row.normaliser or 0 for row in rows)
