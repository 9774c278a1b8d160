"""Many rows of several decoders: the time of their decisions, of the candidates, and of a forward on the same rows.

Shape legend: N rows, B block length, M masked positions, T positions of a forward, V logit columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from engine.attention.sdpa import SDPAAttention
from engine.bench.throughput.roofline import now
from engine.cache.kv_cache import KVCache
from engine.canvas import Canvas
from engine.columns import Columns
from engine.decoding.decoder import Candidates
from engine.decoding.dispatch import BlockRows, DecoderDispatch, Trait
from engine.decoding.sampler import propose
from engine.model_runner import MAX_LOGITS
from engine.models.spec import DiffusionLM
from engine.plan import Rows
from engine.randomness import uniform
from engine.step_results import host_result

MASKED_SHARE = 0.5
"""Of the positions: blocks on average half-way through."""
DECISIONS_PER_FORWARD = 8


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, medians: deciding (with writing the canvas and the copy to the host), making candidates, and the
    forward, of which the output head takes ``head_s``."""

    selection_s: float
    candidates_s: float
    forward_s: float
    head_s: float

    @property
    def ratio(self) -> float:
        """Deciding over the forward."""
        return self.selection_s / self.forward_s


def measure(model: DiffusionLM, decoders: Sequence[str], num_rows: int, block_length: int, repeats: int) -> Times:
    """Forwards and decisions in turns, so that both see the same machine; the first turn only warms up."""
    device = next(model.parameters()).device
    decisions = Decisions(decoders, num_rows, block_length, model.spec.mask_token_id, device)
    forward = Forward(model, decisions)
    turns = []
    for _ in range(repeats + 1):
        body_s, head_s, candidates_s = forward.run()
        selection_s = [decisions.run() for _ in range(DECISIONS_PER_FORWARD)]
        turns.append((median(selection_s), candidates_s, body_s + head_s, head_s))
    return Times(*(median(column) for column in zip(*turns[1:], strict=True)))


class Decisions:
    """The rows of a step, those of a decoder adjacent, with candidates of random confidence; ``run`` decides on them
    as the engine does after each forward."""

    def __init__(
        self, decoders: Sequence[str], num_rows: int, block_length: int, mask_token_id: int, device: torch.device
    ) -> None:
        columns = Columns(num_rows, device)
        self._device = device
        self._dispatch = DecoderDispatch(columns)
        self._canvas = Canvas(num_rows, block_length, mask_token_id, device)
        self._groups = list(_groups(decoders, num_rows))
        for name, start, end in self._groups:
            self._dispatch.prepare(name, block_length)
            for slot in range(start, end):
                columns.write(f"knobs.{name}", slot, {})
                columns.write(f"state.{name}", slot, {})
        self.blocks = _blocks(num_rows, block_length, mask_token_id, device)
        self._candidates = _candidates(self.blocks, self._dispatch.num_ranked(self._groups))

    def wants(self, trait: Trait) -> Tensor:
        """Which rows' decoders have the trait, ``[N]``."""
        num_rows = len(self.blocks.slots_N)
        return torch.from_numpy(self._dispatch.rows_with(trait, self._groups, num_rows)).to(self._device)

    def run(self) -> float:
        """Seconds of one decision on all rows."""
        started = now(self._device)
        blocks = self.blocks
        selection = self._dispatch.select(self._groups, self._candidates, blocks)
        self._canvas.apply(blocks.slots_N, blocks.positions_NB, selection.transfer_NB, selection.tokens_NB)
        host_result(blocks, self._candidates, selection)
        return now(self._device) - started


class Forward:
    """One forward on the same rows, each alone: layers on all positions, output head on the masked ones."""

    def __init__(self, model: DiffusionLM, decisions: Decisions) -> None:
        spec, blocks = model.spec, decisions.blocks
        self._model = model
        self._device = blocks.tokens_NB.device
        num_rows, width = blocks.tokens_NB.shape
        weight = next(model.parameters())
        self._cache = KVCache(
            spec.num_layers, num_rows, width, spec.num_kv_heads, spec.head_dim, weight.dtype, self._device
        )
        zeros, ends = np.zeros(num_rows, np.int64), np.full(num_rows, width)
        self._rows = Rows(np.arange(num_rows), zeros, ends, zeros, ends)
        self._page_table = np.arange(num_rows)[:, None]
        self._tokens_T, self._positions_T = blocks.tokens_NB.flatten(), blocks.positions_NB.flatten()
        self._masked_M = blocks.masked_NB.flatten().nonzero().flatten()
        self._row_M = self._masked_M // width
        self._entropy_N, self._margin_N = decisions.wants("needs_entropy"), decisions.wants("needs_margin")

    @torch.inference_mode()
    def run(self) -> tuple[float, float, float]:
        """Seconds of the layers, of the output head and of the candidates (in turns, as the engine holds logits)."""
        started = now(self._device)
        attention = SDPAAttention(self._cache, self._rows, self._page_table)
        hidden_TD: Tensor = self._model(self._model.embed(self._tokens_T), self._positions_T, attention)
        body_s = now(self._device) - started
        head_s = candidates_s = 0.0
        vocabulary = self._model.vocabulary
        at_a_time = max(MAX_LOGITS // vocabulary.widest, 1)
        for part_M, row_M in zip(self._masked_M.split(at_a_time), self._row_M.split(at_a_time), strict=True):
            started = now(self._device)
            logits_MV = self._model.compute_logits(hidden_TD[part_M]).float()
            computed = now(self._device)
            wanted = (flags_N[row_M].nonzero().flatten() for flags_N in (self._entropy_N, self._margin_N))
            propose(logits_MV, vocabulary, self._model.spec.mask_token_id, *wanted)
            head_s += computed - started
            candidates_s += now(self._device) - computed
        return body_s, head_s, candidates_s


def _groups(decoders: Sequence[str], num_rows: int) -> Iterator[tuple[str, int, int]]:
    """The rows shared out evenly."""
    for index, name in enumerate(decoders):
        start, end = (num_rows * share // len(decoders) for share in (index, index + 1))
        if end > start:
            yield name, start, end


def _blocks(num_rows: int, width: int, mask_token_id: int, device: torch.device) -> BlockRows:
    slots_N = torch.arange(num_rows, device=device)
    positions_NB = torch.arange(width, device=device).repeat(num_rows, 1)
    masked_NB = uniform(slots_N[:, None], positions_NB) < MASKED_SHARE
    ones_N = torch.ones_like(slots_N)
    return BlockRows(
        slots_N=slots_N,
        tokens_NB=torch.where(masked_NB, mask_token_id, positions_NB),
        masked_NB=masked_NB,
        editable_NB=masked_NB,
        valid_NB=torch.ones_like(masked_NB),
        positions_NB=positions_NB,
        step_N=ones_N,
        total_step_N=ones_N,
        seed_N=slots_N,
        force_N=torch.zeros_like(ones_N, dtype=torch.bool),
        mask_token_id=mask_token_id,
    )


def _candidates(blocks: BlockRows, num_ranked: int) -> Candidates:
    """Random confidences at the masked positions, and whatever else a decoder may ask for."""
    spread_NB = uniform(blocks.positions_NB, blocks.slots_N[:, None] + 1)
    masked_NB = blocks.masked_NB
    return Candidates(
        tokens_NB=blocks.positions_NB,
        confidence_NB=spread_NB.masked_fill(~masked_NB, -torch.inf),
        probability_NB=spread_NB.masked_fill(~masked_NB, 0.0),
        entropy_NB=(1 - spread_NB).masked_fill(~masked_NB, torch.inf),
        margin_NB=(spread_NB / 2).masked_fill(~masked_NB, 0.0),
        divergence_NB=(1 - spread_NB).masked_fill(~masked_NB, torch.inf),
        current_NB=torch.zeros_like(spread_NB),
        ranked_NBK=blocks.positions_NB[..., None] + torch.arange(num_ranked, device=spread_NB.device),
    )
