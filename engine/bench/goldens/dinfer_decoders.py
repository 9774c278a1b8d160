"""Recorded calls of dInfer's decoders on given logits: the rule alone, without a model.

Shape legend: N rows of the batch, B block length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors.torch import load_file
from torch import Tensor

from engine.bench.goldens.case import Case, DirectCase, UnreadableCase
from engine.bench.goldens.folders import decoder_files
from engine.bench.goldens.knobs import decoder_knobs
from engine.bench.goldens.results import NotSupportedError
from engine.columns import Columns, knob_columns
from engine.decoding import DECODERS
from engine.decoding.decoder import Candidates, Decoder, DecodeRows
from engine.decoding.sampler import propose

HARNESS_PARAMS = frozenset({"temperature", "use_float64", "remasking"})
"""Constructor arguments that are no knob of the rule: temperature is 0, precision does not decide, remasking names
the decoder."""

WAITS_ON_MASK = frozenset({"threshold", "credit"})
"""Recorded decoders that leave a position alone while it predicts the mask itself. The engine proposes the next best
token instead, so the replay hands over the other positions only."""


class CaseEntry(BaseModel):
    """One recorded case; ``block_start`` and ``block_end`` may be given per call."""

    id: str
    iters: int = 0
    block_start: int | list[int] = 0
    block_end: int | list[int] = 0
    params: dict[str, object]
    iter_threshold: list[float | None] | None = None
    function: str | None = None
    quirk: bool

    def block(self, call: int) -> tuple[int, int]:
        start, end = self.block_start, self.block_end
        return (start if isinstance(start, int) else start[call], end if isinstance(end, int) else end[call])


class Recording(BaseModel):
    """One file: the calls of one decoder."""

    decoder: str
    mask_id: int
    cases: list[CaseEntry]


class DecoderCase(DirectCase):
    """A decoder applied several times to one token array."""

    kind = "dinfer_decoders"

    def __init__(self, recording: Recording, entry: CaseEntry, tensors: Mapping[str, Tensor]) -> None:
        self.id = entry.id
        self.required = not entry.quirk
        self._recording = recording
        self._entry = entry
        self._tensors = tensors

    def differences(self) -> list[str]:
        entry = self._entry
        if entry.function is not None:
            raise NotSupportedError(f"helper function {entry.function}: not a decoder")
        name = decoder_name(self._recording.decoder, entry.params)
        knobs = decoder_knobs(name, entry.params, HARNESS_PARAMS)
        tokens_NT = self._tensors["x_init"].clone()
        waits = self._recording.decoder in WAITS_ON_MASK
        replayed = ReplayedDecoder(DECODERS.get(name)(), knobs, len(tokens_NT), waits)
        for call in range(entry.iters):
            start, end = entry.block(call)
            threshold = entry.iter_threshold[call] if entry.iter_threshold else None
            block = tokens_NT[:, start:end]
            tokens_NT[:, start:end] = replayed.decode(
                self._tensors["logits"][call].float(), block, self._recording.mask_id, start, threshold
            )
            if not torch.equal(tokens_NT, self._tensors["x"][call]):
                wrong = (tokens_NT != self._tensors["x"][call]).nonzero()[0].tolist()
                return [f"tokens after call {call}: row {wrong[0]} differs at {wrong[1]}"]
        return []


class ReplayedDecoder:
    """A decoder with its columns, for blocks that are handed in one after another."""

    def __init__(self, decoder: Decoder, knobs: Mapping[str, object], num_rows: int, waits_on_mask: bool) -> None:
        self._decoder = decoder
        self._waits_on_mask = waits_on_mask
        self._knobs = dict(knobs)
        self._num_rows = num_rows
        self._slots_N = torch.arange(num_rows)
        self._columns = Columns(num_rows, torch.device("cpu"))
        self._columns.declare("knobs", knob_columns(decoder.Params))
        self._columns.declare("state", decoder.state)
        self._block_start = -1
        self._step = 0

    def decode(
        self, logits_NBV: Tensor, tokens_NB: Tensor, mask_id: int, start: int, threshold: float | None
    ) -> Tensor:
        """The block's tokens after one step; ``threshold`` replaces the decoder's own for this call."""
        self._step = self._step + 1 if start == self._block_start else 0
        self._block_start = start
        for slot in range(self._num_rows):
            override = {} if threshold is None else {"threshold": threshold}
            self._columns.write("knobs", slot, self._knobs | override)
        masked_NB = tokens_NB == mask_id
        if self._waits_on_mask:
            masked_NB &= logits_NBV.argmax(dim=2) != mask_id
        rows = self._rows(tokens_NB, masked_NB, start)
        selection = self._decoder.select(self._candidates(logits_NBV, masked_NB, mask_id), rows)
        self._columns.store("state", self._slots_N, selection.state)
        return torch.where(selection.transfer_NB, selection.tokens_NB, tokens_NB)

    def _rows(self, tokens_NB: Tensor, masked_NB: Tensor, start: int) -> DecodeRows:
        num_rows, width = tokens_NB.shape
        return DecodeRows(
            tokens_NB=tokens_NB,
            masked_NB=masked_NB,
            valid_NB=torch.ones_like(masked_NB),
            positions_NB=torch.arange(start, start + width).expand(num_rows, width),
            step_N=torch.full((num_rows,), self._step),
            seed_N=torch.zeros(num_rows, dtype=torch.int64),
            knobs=self._columns.view("knobs", self._slots_N),
            state=self._columns.view("state", self._slots_N),
        )

    def _candidates(self, logits_NBV: Tensor, masked_NB: Tensor, mask_id: int) -> Candidates:
        proposal = propose(logits_NBV.flatten(0, 1), mask_id, torch.arange(masked_NB.numel()))
        shape = masked_NB.shape
        return Candidates(
            proposal.tokens_M.view(shape),
            proposal.confidence_M.view(shape).masked_fill(~masked_NB, -torch.inf),
            proposal.entropy_M.view(shape).masked_fill(~masked_NB, torch.inf),
        )


def decoder_name(recorded: str, params: Mapping[str, object]) -> str:
    """The engine's name of a recorded decoder: the fixed schedule is called by how it ranks."""
    return str(params["remasking"]) if recorded == "fixed" else recorded


def load(folder: Path) -> Iterator[Case]:
    """Every case of every recorded decoder."""
    for file in decoder_files(folder):
        try:
            recording = Recording.model_validate_json(file.read_bytes())
            tensors = load_file(file.with_suffix(".safetensors"))
        except (ValueError, OSError) as error:
            yield UnreadableCase(DecoderCase.kind, file.stem, str(error))
        else:
            for entry in recording.cases:
                yield DecoderCase(recording, entry, tensors_of(tensors, entry.id))


def tensors_of(tensors: Mapping[str, Tensor], case_id: str) -> dict[str, Tensor]:
    """The tensors of one case, without its prefix."""
    prefix = f"{case_id}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
