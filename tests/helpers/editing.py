"""Blocks that are decided on step by step, tokens and all, on the logits of an imagined model.

Shape legend: N rows, B positions, V logit columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.columns import Columns
from engine.decoding import DECODERS
from engine.decoding.decoder import Candidates
from engine.decoding.dispatch import BlockRows, DecoderDispatch
from engine.decoding.sampler import propose, rank_tokens
from engine.decoding.vocabulary import Vocabulary
from tests.helpers.decoding import groups_of

MASK, DELETE, SPLIT, VOCAB_SIZE = 0, 10, 11, 12
COMMANDS: Mapping[str, object] = {"delete_token_id": DELETE, "split_token_id": SPLIT}


@dataclass(frozen=True, kw_only=True)
class EditedBlock:
    """A block of ``decoder``; what is no mask at the beginning is given. Equal ``logits_seed`` and tokens give equal
    logits, so that edits may run in circles."""

    decoder: str
    tokens: Sequence[int]
    knobs: Mapping[str, object] = field(default_factory=dict)
    logits_seed: int = 0

    @property
    def max_steps(self) -> int:
        decoder = DECODERS.get(self.decoder)
        return decoder.max_steps(decoder.Params(**self.knobs), len(self.tokens))


class Run:
    """Owns the canvas of some blocks (equal decoders adjacent) and the memory of their decoders."""

    def __init__(self, blocks: Sequence[EditedBlock], padding: int = 0) -> None:
        self._width = max(len(block.tokens) for block in blocks) + padding
        columns = Columns(len(blocks), torch.device("cpu"))
        self._dispatch = DecoderDispatch(columns)
        for slot, block in enumerate(blocks):
            self._dispatch.prepare(block.decoder, len(block.tokens))
            columns.write(f"knobs.{block.decoder}", slot, block.knobs)
            columns.write(f"state.{block.decoder}", slot, {})
        self.begin(blocks)

    def begin(self, blocks: Sequence[EditedBlock]) -> None:
        """Go on with other blocks (same decoders, no longer ones) in the same slots."""
        self.blocks = blocks
        self.tokens_NB = torch.full((len(blocks), self._width), MASK)
        self.valid_NB = torch.zeros((len(blocks), self._width), dtype=torch.bool)
        for slot, block in enumerate(blocks):
            self.tokens_NB[slot, : len(block.tokens)] = torch.tensor(block.tokens)
            self.valid_NB[slot, : len(block.tokens)] = True
        self.given_NB = self.tokens_NB != MASK
        self.step_number = 0
        self.done_N = torch.zeros(len(blocks), dtype=torch.bool)

    def step(self) -> Tensor:
        """Decide once on all blocks, done or not; returns where something was written, ``[N, B]``."""
        rows = self._rows()
        groups = groups_of([block.decoder for block in self.blocks])
        selection = self._dispatch.select(groups, self._candidates(rows), rows)
        assert selection.done_N is not None
        self.tokens_NB = selection.tokens_NB.where(selection.transfer_NB, self.tokens_NB)
        self.step_number += 1
        full_N = ~((self.tokens_NB == MASK) & self.valid_NB).any(dim=1)
        self.done_N = selection.done_N & full_N
        return selection.transfer_NB

    def block(self, row: int) -> list[int]:
        """The tokens of one block as they stand."""
        tokens: list[int] = self.tokens_NB[row, : len(self.blocks[row].tokens)].tolist()
        return tokens

    def _rows(self) -> BlockRows:
        numbers_N = torch.full((len(self.blocks),), self.step_number)
        masked_NB = (self.tokens_NB == MASK) & self.valid_NB
        edits_N1 = torch.tensor([DECODERS.get(block.decoder).edits for block in self.blocks])[:, None]
        return BlockRows(
            slots_N=torch.arange(len(self.blocks)),
            tokens_NB=self.tokens_NB,
            masked_NB=masked_NB,
            editable_NB=masked_NB | (self.valid_NB & ~self.given_NB & edits_N1),
            valid_NB=self.valid_NB,
            positions_NB=torch.arange(self.tokens_NB.shape[1]).expand(self.tokens_NB.shape),
            step_N=numbers_N,
            total_step_N=numbers_N,
            seed_N=torch.zeros_like(numbers_N),
            force_N=torch.zeros(len(self.blocks), dtype=torch.bool),
            mask_token_id=MASK,
        )

    def _candidates(self, rows: BlockRows) -> Candidates:
        shape = self.tokens_NB.shape
        logits_NBV = torch.zeros((*shape, VOCAB_SIZE))
        for row, block in enumerate(self.blocks):
            logits_NBV[row, : len(block.tokens)] = model_logits(block.logits_seed, self.block(row))
        logits_MV = logits_NBV.flatten(0, 1)
        everywhere = torch.arange(len(logits_MV))
        vocabulary = Vocabulary(VOCAB_SIZE)
        proposal = propose(logits_MV, vocabulary, MASK, everywhere, everywhere)
        zeros_NB = torch.zeros(shape)
        return Candidates(
            tokens_NB=proposal.tokens_M.view(shape),
            confidence_NB=proposal.confidence_M.view(shape).masked_fill(~rows.editable_NB, -torch.inf),
            probability_NB=proposal.probability_M.view(shape),
            entropy_NB=proposal.entropy_M.view(shape),
            margin_NB=proposal.margin_M.view(shape),
            divergence_NB=zeros_NB + torch.inf,
            current_NB=zeros_NB,
            ranked_NBK=rank_tokens(logits_MV, vocabulary, MASK, 20).unflatten(0, shape),
        )


def model_logits(seed: int, tokens: Sequence[int]) -> Tensor:
    """Logits ``[B, V]`` of a block; multiples of 1/2, so that there are ties."""
    for token in tokens:
        seed = (seed * 1_000_003 + token + 1) % 2**40
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, (len(tokens), VOCAB_SIZE), generator=generator) / 2
