"""Transforms on plain lists: logits of a block in, logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from engine.columns import Columns
from engine.decoding.dispatch import BlockRows
from engine.decoding.places import Places
from engine.decoding.transform_dispatch import TransformDispatch, Users
from engine.decoding.transforms import TRANSFORMS
from engine.decoding.vocabulary import Vocabulary

MASK = 0


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request whose block ``[start, end)`` is decided: its whole canvas (:data:`MASK` where nothing is), and what
    it asks of each transform."""

    canvas: Sequence[int]
    start: int
    end: int
    knobs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    prompt_len: int = 1
    limit: int | None = None
    open_places: Sequence[bool] | None = None

    @property
    def block(self) -> list[int]:
        return list(self.canvas[self.start : self.end])


class TransformRig:
    """Slots of a dispatch; calls at step 0 begin a block. With a ``vocabulary`` the logits are those of its rank."""

    def __init__(self, requests: Sequence[Request], vocabulary: Vocabulary | None = None) -> None:
        self._vocabulary = vocabulary
        self.columns = Columns(len(requests), torch.device("cpu"))
        self.dispatch = TransformDispatch(self.columns)
        for slot, request in enumerate(requests):
            self.dispatch.admit(slot, request.knobs, request.end - request.start)

    def apply(self, requests: Sequence[Request], logits_NBV: Tensor, step: int = 0, at_a_time: int = 1000) -> Tensor:
        """The logits ``[N, B, V]`` behind the transforms; positions that are decided keep theirs unless open."""
        blocks, users = _block_rows(requests, step), _users(requests, step)
        self.dispatch.begin(users, blocks.slots_N)
        block_M, offset_M = blocks.editable_NB.nonzero(as_tuple=True)
        changed_NBV = logits_NBV.clone()
        vocabulary = self._vocabulary or Vocabulary(logits_NBV.shape[2])
        for first in range(0, len(block_M), at_a_time):
            part = slice(first, first + at_a_time)
            logits_MV = logits_NBV[block_M[part], offset_M[part]]
            self.dispatch.change(logits_MV, vocabulary, Places.of(block_M[part], offset_M[part]), users, blocks)
            changed_NBV[block_M[part], offset_M[part]] = logits_MV
        return changed_NBV


def transformed(request: Request, logits_BV: Tensor, step: int = 0, at_a_time: int = 1000) -> Tensor:
    """The logits of one request's block behind its transforms."""
    return TransformRig([request]).apply([request], logits_BV[None], step, at_a_time)[0]


def _users(requests: Sequence[Request], step: int) -> Users:
    bits = [sum(1 << number for number, name in enumerate(TRANSFORMS) if name in one.knobs) for one in requests]
    longest = max(len(one.canvas) for one in requests)
    return Users(
        transforms_N=np.array(bits, np.int64),
        begins_N=np.full(len(requests), step == 0),
        canvas_NL=torch.tensor([[*one.canvas, *[MASK] * (longest - len(one.canvas))] for one in requests]),
        prompt_len_N=torch.tensor([one.prompt_len for one in requests]),
        limit_N=torch.tensor([len(one.canvas) if one.limit is None else one.limit for one in requests]),
    )


def _block_rows(requests: Sequence[Request], step: int) -> BlockRows:
    width = max(one.end - one.start for one in requests)
    tokens_NB = torch.full((len(requests), width), MASK)
    valid_NB, open_NB = (torch.zeros((len(requests), width), dtype=torch.bool) for _ in range(2))
    for n, one in enumerate(requests):
        length = one.end - one.start
        tokens_NB[n, :length] = torch.tensor(one.block)
        valid_NB[n, :length] = True
        if one.open_places is not None:
            open_NB[n, :length] = torch.tensor(one.open_places)
    masked_NB = (tokens_NB == MASK) & valid_NB
    num_rows = torch.zeros(len(requests), dtype=torch.int64)
    return BlockRows(
        slots_N=torch.arange(len(requests)),
        tokens_NB=tokens_NB,
        masked_NB=masked_NB,
        editable_NB=masked_NB | open_NB,
        valid_NB=valid_NB,
        positions_NB=torch.tensor([one.start for one in requests])[:, None] + torch.arange(width),
        step_N=num_rows + step,
        total_step_N=num_rows + step,
        seed_N=num_rows,
        force_N=num_rows > 0,
        mask_token_id=MASK,
    )
