"""From the candidates of a whole forward to one decision: each decoder is called once, on its own rows.

Shape legend: N decoded blocks, B width of the widest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.columns import Columns, knob_columns
from engine.decoding import DECODERS
from engine.decoding.decoder import EMPTY, Candidates, Decoder, DecodeRows, Selection
from engine.decoding.ranking import best
from engine.registry import Registry

Trait = Literal["needs_entropy", "needs_margin", "needs_divergence", "edits", "num_ranked"]


@dataclass(frozen=True, slots=True)
class BlockRows:
    """The decided blocks of a forward, all decoders together; see DecodeRows for the fields. ``editable_NB`` is
    ``masked_NB`` in rows whose decoder does not edit. ``force_N`` marks rows that have taken too many steps.
    ``knob_floors`` holds least values of knobs, for the decoders that have them."""

    slots_N: Tensor
    tokens_NB: Tensor
    masked_NB: Tensor
    editable_NB: Tensor
    valid_NB: Tensor
    positions_NB: Tensor
    step_N: Tensor
    total_step_N: Tensor
    seed_N: Tensor
    force_N: Tensor
    mask_token_id: int
    knob_floors: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)


class DecoderDispatch:
    """Owns one instance of each decoder in use, and declares its columns when a request first asks for it."""

    def __init__(self, columns: Columns, decoders: Registry[Decoder] = DECODERS) -> None:
        self._columns = columns
        self._registry = decoders
        self._decoders: dict[str, Decoder] = {}

    def prepare(self, name: str, block_length: int) -> Decoder:
        """The decoder of that name, with room for what it remembers of blocks of that length."""
        if name not in self._decoders:
            decoder = self._registry.get(name)
            self._columns.declare(f"knobs.{name}", knob_columns(decoder.Params))
            self._decoders[name] = decoder()
        self._columns.declare(f"state.{name}", self._decoders[name].state, block_length)
        return self._decoders[name]

    def rows_with(self, trait: Trait, groups: Sequence[tuple[str, int, int]], num_rows: int) -> npt.NDArray[np.bool_]:
        """Which rows' decoders have the trait (a number: any), ``[N]``."""
        having_N = np.zeros(num_rows, np.bool_)
        for name, start, end in groups:
            having_N[start:end] = getattr(self._decoders[name], trait)
        return having_N

    def edits(self, name: str) -> bool:
        """Whether a prepared decoder edits."""
        return self._decoders[name].edits

    def diverges(self, name: str) -> bool:
        """Whether a prepared decoder wants divergences."""
        return self._decoders[name].needs_divergence

    def num_ranked(self, groups: Sequence[tuple[str, int, int]]) -> int:
        """Most ranked tokens that a decoder of these groups asks for."""
        return max(self._decoders[name].num_ranked for name, _, _ in groups)

    def select(
        self,
        groups: Sequence[tuple[str, int, int]],
        candidates: Candidates,
        blocks: BlockRows,
    ) -> Selection:
        """One decision for all rows. Whatever a decoder says, a row with masks makes progress, and a row marked in
        ``force_N`` fills all of its masks and masks nothing again."""
        parts = [self._select(name, start, end, candidates, blocks) for name, start, end in groups]
        transfer_NB = torch.cat([part.transfer_NB for part in parts]) & blocks.editable_NB
        tokens_NB = torch.cat([part.tokens_NB for part in parts])
        transfer_NB &= ~(blocks.force_N[:, None] & (tokens_NB == blocks.mask_token_id))
        idle_N = torch.cat([_flags(part, part.idle_N, default=False) for part in parts])
        stuck_N = ~(transfer_NB & blocks.masked_NB).any(dim=1) & ~idle_N
        progress_NB = best(candidates.confidence_NB, blocks.masked_NB) & stuck_N[:, None]
        progress_NB |= blocks.masked_NB & blocks.force_N[:, None]
        tokens_NB = torch.where(progress_NB, candidates.tokens_NB, tokens_NB)
        done_N = torch.cat([_flags(part, part.done_N, default=True) for part in parts]) | blocks.force_N
        return Selection(transfer_NB | progress_NB, tokens_NB, done_N=done_N)

    def _select(self, name: str, start: int, end: int, candidates: Candidates, blocks: BlockRows) -> Selection:
        slots_N = blocks.slots_N[start:end]
        rows = DecodeRows(
            tokens_NB=blocks.tokens_NB[start:end],
            masked_NB=blocks.masked_NB[start:end],
            editable_NB=blocks.editable_NB[start:end],
            valid_NB=blocks.valid_NB[start:end],
            positions_NB=blocks.positions_NB[start:end],
            step_N=blocks.step_N[start:end],
            total_step_N=blocks.total_step_N[start:end],
            seed_N=blocks.seed_N[start:end],
            knobs=_raised(self._columns.view(f"knobs.{name}", slots_N), blocks.knob_floors, start, end),
            state=self._columns.view(f"state.{name}", slots_N, blocks.tokens_NB.shape[1]),
            mask_token_id=blocks.mask_token_id,
        )
        selection = self._decoders[name].select(candidates.rows(start, end), rows)
        self._columns.store(f"state.{name}", slots_N, selection.state)
        return selection


def _raised(knobs: Mapping[str, Tensor], floors: Mapping[str, Tensor], start: int, end: int) -> Mapping[str, Tensor]:
    """The knobs of rows ``[start, end)``, none below its floor."""
    raised = {name: torch.maximum(knobs[name], floor_N[start:end]) for name, floor_N in floors.items() if name in knobs}
    return {**knobs, **raised} if raised else knobs


def _flags(selection: Selection, flags_N: Tensor | None, *, default: bool) -> Tensor:
    if flags_N is not None:
        return flags_N
    return torch.full((len(selection.transfer_NB),), default, device=selection.transfer_NB.device)
