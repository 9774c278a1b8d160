"""A decoder of the engine on blocks and logits that are handed in, as recordings of single rules need it.

Shape legend: N rows of the batch, B block length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from torch import Tensor

from engine.columns import Columns, knob_columns
from engine.decoding import DECODERS
from engine.decoding.decoder import Candidates, DecodeRows, Selection
from engine.decoding.dispatch import BlockRows
from engine.decoding.places import Places
from engine.decoding.sampler import propose, rank_tokens
from engine.decoding.transform_dispatch import TransformDispatch, Users
from engine.decoding.transforms import TRANSFORMS
from engine.decoding.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class ReplayedStep:
    """What the decoder decided, and the logits that it was shown."""

    selection: Selection
    logits_NBV: Tensor


class ReplayedDecoder:
    """Owns the decoder's columns; calls for the same block continue its steps, another block starts at step 0.

    ``knobs`` may hold options of logits transforms, which then run in front of the decoder.
    """

    def __init__(self, name: str, knobs: Mapping[str, object], num_rows: int) -> None:
        self._decoder = DECODERS.get(name)()
        self._knobs = knobs
        self._transform_knobs = _transform_knobs(knobs)
        self._slots_N = torch.arange(num_rows)
        self._columns = Columns(num_rows, torch.device("cpu"))
        self._columns.declare("knobs", knob_columns(self._decoder.Params))
        self._transforms = TransformDispatch(self._columns)
        self._block_start = -1
        self._step = 0

    def select(
        self,
        logits_NBV: Tensor,
        tokens_NB: Tensor,
        masked_NB: Tensor,
        mask_id: int,
        start: int = 0,
        overrides: Mapping[str, object] | None = None,
        *,
        waits_on_mask: bool = False,
        own_NB: Tensor | None = None,
    ) -> ReplayedStep:
        """One step on the block at ``start``; ``overrides`` replace knobs for this call. With ``waits_on_mask`` the
        decoder is not offered positions that predict the mask itself. ``own_NB`` marks tokens that a decoder which
        edits has filled itself."""
        self._step = self._step + 1 if start == self._block_start else 0
        self._block_start = start
        self._columns.declare("state", self._decoder.state, tokens_NB.shape[1])
        for slot in self._slots_N.tolist():
            self._columns.write("knobs", slot, {**self._knobs, **(overrides or {})})
            if self._step == 0:
                self._transforms.admit(slot, self._transform_knobs, tokens_NB.shape[1])
                self._columns.write("state", slot, {})
        logits_NBV = self._transformed(logits_NBV, self._rows(tokens_NB, masked_NB, masked_NB, mask_id, start))
        if waits_on_mask:
            masked_NB = masked_NB & (logits_NBV.argmax(dim=2) != mask_id)
        editable_NB = masked_NB if own_NB is None else masked_NB | own_NB
        rows = self._rows(tokens_NB, masked_NB, editable_NB, mask_id, start)
        candidates = _candidates(logits_NBV, editable_NB, mask_id, self._decoder.num_ranked)
        selection = self._decoder.select(candidates, rows)
        self._columns.store("state", self._slots_N, selection.state)
        return ReplayedStep(selection, logits_NBV)

    def _transformed(self, logits_NBV: Tensor, rows: DecodeRows) -> Tensor:
        """The logits behind all transforms in use, at every position of the block."""
        num_rows, width = rows.tokens_NB.shape
        used = sum(1 << number for number, name in enumerate(TRANSFORMS) if name in self._transform_knobs)
        users = Users(
            transforms_N=np.full(num_rows, used),
            begins_N=np.full(num_rows, self._step == 0),
            canvas_NL=rows.tokens_NB,
            prompt_len_N=torch.zeros(num_rows, dtype=torch.int64),
            limit_N=torch.full((num_rows,), width),
        )
        blocks = BlockRows(
            slots_N=self._slots_N,
            force_N=torch.zeros(num_rows, dtype=torch.bool),
            **{name: getattr(rows, name) for name in DecodeRows.__slots__ if name not in ("knobs", "state")},
        )
        logits_MV = logits_NBV.flatten(0, 1).float().clone()
        places = Places.of(*torch.ones_like(rows.masked_NB).nonzero(as_tuple=True))
        self._transforms.begin(users, self._slots_N)
        self._transforms.change(logits_MV, Vocabulary(logits_MV.shape[1]), places, users, blocks)
        return logits_MV.view(logits_NBV.shape)

    def _rows(self, tokens_NB: Tensor, masked_NB: Tensor, editable_NB: Tensor, mask_id: int, start: int) -> DecodeRows:
        num_rows, width = tokens_NB.shape
        return DecodeRows(
            tokens_NB=tokens_NB,
            masked_NB=masked_NB,
            editable_NB=editable_NB,
            valid_NB=torch.ones_like(masked_NB),
            positions_NB=torch.arange(start, start + width).expand(num_rows, width),
            step_N=torch.full((num_rows,), self._step),
            total_step_N=torch.full((num_rows,), self._step),
            seed_N=torch.zeros(num_rows, dtype=torch.int64),
            knobs=self._columns.view("knobs", self._slots_N),
            state=self._columns.view("state", self._slots_N, width),
            mask_token_id=mask_id,
        )


def _transform_knobs(knobs: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Of ``knobs`` those of each transform that they switch on."""
    found: dict[str, dict[str, object]] = {}
    for name in TRANSFORMS:
        params = TRANSFORMS.get(name).Params
        own = params(**{field.name: knobs[field.name] for field in fields(params) if field.name in knobs})
        if TRANSFORMS.get(name).active(own):
            found[name] = asdict(own)
    return found


def _candidates(logits_NBV: Tensor, wanted_NB: Tensor, mask_id: int, num_ranked: int) -> Candidates:
    everywhere = torch.arange(wanted_NB.numel())
    logits_MV = logits_NBV.flatten(0, 1)
    vocabulary = Vocabulary(logits_MV.shape[1])
    proposal = propose(logits_MV, vocabulary, mask_id, everywhere, everywhere)
    shape = wanted_NB.shape
    return Candidates(
        tokens_NB=proposal.tokens_M.view(shape),
        confidence_NB=proposal.confidence_M.view(shape).masked_fill(~wanted_NB, -torch.inf),
        probability_NB=proposal.probability_M.view(shape).masked_fill(~wanted_NB, 0.0),
        entropy_NB=proposal.entropy_M.view(shape).masked_fill(~wanted_NB, torch.inf),
        margin_NB=proposal.margin_M.view(shape).masked_fill(~wanted_NB, 0.0),
        divergence_NB=torch.full(shape, torch.inf),
        current_NB=torch.zeros(shape),
        ranked_NBK=rank_tokens(logits_MV, vocabulary, mask_id, num_ranked).unflatten(0, shape),
    )
