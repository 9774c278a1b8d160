"""The token before, inside the block."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.columns import Columns
from engine.decoding.transform import TransformRows
from engine.decoding.transforms.neighbour_penalty import NeighbourPenalty
from engine.decoding.vocabulary import Vocabulary
from tests.helpers.engines import drive, load, make_request


def test_the_logit_of_the_token_before_is_lowered_but_not_at_the_first_place() -> None:
    tokens_NB = torch.tensor([[3, 1], [0, 2]])
    block_M, offset_M = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    zeros_N = torch.zeros(2, dtype=torch.int64)
    rows = TransformRows(
        block_M=block_M,
        offset_M=offset_M,
        tokens_NB=tokens_NB,
        masked_NB=tokens_NB == 0,
        positions_NB=tokens_NB,
        step_N=zeros_N,
        canvas_NL=tokens_NB,
        prompt_len_N=zeros_N,
        limit_N=zeros_N,
        knobs={"neighbour_penalty": torch.tensor([1.0, 1.0, 2.5])},
        state=Columns(2, torch.device("cpu")).cells("none", block_M, offset_M),
        mask_token_id=0,
        vocabulary=Vocabulary(4),
    )
    logits = NeighbourPenalty().apply(torch.ones(3, 4), rows)
    assert logits.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [-1.5, 1, 1, 1]]


@pytest.mark.parametrize("family", ["llada_folder", "sdar_folder"])
def test_with_the_largest_penalty_nothing_repeats_inside_a_block(family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(family)
    engine = load(folder)
    strategy = {"decoder": "sequential", "block_length": 8, "steps": 8}
    repeats = {}
    for penalty in (0.0, 100.0):
        options = {"max_tokens": 48, "strategy": strategy | {"neighbour_penalty": penalty}, "ignore_eos": True}
        tokens = drive(engine, [make_request("a", [7] * 8, engine, **options)])["a"].token_ids
        repeats[penalty] = sum(tokens[place] == tokens[place - 1] for place in range(48) if place % 8)
    assert repeats[100.0] == 0
    assert repeats[0.0] > 0
