"""Generations by dInfer's runners on tiny models, with the token array after every decode call.

dInfer spends forwards that decide nothing (unrolled past the end of a block, a second one at each cache refresh). The
replay counts the calls that filled something: those are the forwards the engine needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file
from torch import Tensor

from engine.bench.goldens.case import Case, GenerationCase, Row, RowRun, UnreadableCase, first_difference
from engine.bench.goldens.complaints import complaint
from engine.bench.goldens.knobs import decoder_knobs
from engine.bench.goldens.lockstep import block_bounds, lock_step
from engine.bench.goldens.results import Mode, NotSupportedError
from engine.sampling_params import SamplingParams

KNOBS = ("threshold", "low_threshold", "credit_alpha", "boost_gamma", "decay_beta")
"""Fields of a recording that are arguments of its decoder."""


class Recording(BaseModel):
    """One run of ``cases.json``; the decoder's arguments are among the extra fields. Runners for block-causal models
    have no cache settings."""

    model_config = ConfigDict(extra="allow")

    id: str
    runner: str
    decoder: str
    cache: str | None = None
    cache_update_freq: int | None = None
    use_shift: bool = False
    start_block_align: bool = False
    prompt_length: int
    gen_length: int
    block_length: int
    mask_id: int
    eos_id: int
    num_forwards: int
    decode_transfers: list[int]
    quirk: bool


class Recordings(BaseModel):
    cases: list[dict[str, object]]


class DinferCase(GenerationCase):
    """One run; each row of its batch becomes a request.

    A row counts up to the end of the first block that holds an EOS: dInfer fills what comes after with EOS.
    """

    kind = "dinfer_e2e"

    def __init__(self, folder: Path, recording: Recording, tensors: Mapping[str, Tensor]) -> None:
        self.id = f"{folder.name}/{recording.id}"
        self.required = not recording.quirk
        self.checkpoint = folder
        self.mask_token_id = recording.mask_id
        self._recording = recording
        self._prompts: list[list[int]] = tensors[f"{recording.id}.prompt"].tolist()
        self._final: list[list[int]] = tensors[f"{recording.id}.x_final"].tolist()
        self._after_decode: list[list[list[int]]] = tensors[f"{recording.id}.x_after_decode"].tolist()
        start = recording.prompt_length
        self._blocks = block_bounds(0, len(self._final[0]) - start, recording.block_length)

    def rows(self, mode: Mode) -> list[Row]:
        recording = self._recording
        options = strategy_options(recording, self._prompts)
        sampling = SamplingParams(
            max_tokens=recording.gen_length,
            ignore_eos=True,
            stop_token_ids=frozenset({recording.eos_id} if mode == "default" else ()),
        )
        canvas_len = recording.prompt_length + recording.gen_length
        return [
            Row(prompt_ids=tuple(ids), sampling=sampling, options=options, canvas_len=canvas_len)
            for ids in self._prompts
        ]

    def differences(self, mode: Mode, runs: Sequence[RowRun]) -> list[str]:
        if mode == "parity":
            return self._parity_differences(runs)
        return self._default_differences(runs)

    def _default_differences(self, runs: Sequence[RowRun]) -> list[str]:
        found = []
        for index, run in enumerate(runs):
            completion = until(self._generated(index), self._recording.eos_id)
            found += first_difference(f"row {index} completion", completion, run.token_ids)
        revealed_at, totals = [run.canvas.revealed_at for run in runs], [run.usage.forwards for run in runs]
        forwards = lock_step(revealed_at, self._blocks, totals).forwards
        if forwards > self._recording.num_forwards:
            found.append(f"forwards: {forwards}, the reference needs {self._recording.num_forwards}")
        return found

    def _parity_differences(self, runs: Sequence[RowRun]) -> list[str]:
        found, revealed_at, totals = [], [], []
        for index, run in enumerate(runs):
            end = self._live_end(index)
            live = list(run.canvas.revealed_at[:end])
            revealed_at.append(live + [0] * (len(run.canvas.revealed_at) - end))
            totals.append(max(live))
            found += first_difference(f"row {index} tokens", self._generated(index)[:end], run.canvas.token_ids[:end])
        batch = lock_step(revealed_at, self._blocks, totals)
        effective = sum(filled > 0 for filled in self._recording.decode_transfers)
        if batch.forwards != effective:
            found.append(f"forwards: {batch.forwards}, expected {effective} that decide something")
        for index, filled_at in enumerate(batch.filled_at):
            end = self._live_end(index)
            found += first_difference(f"row {index} forward", self._filled_at(index)[:end], filled_at[:end])
        return found

    def _generated(self, row: int) -> list[int]:
        return self._final[row][self._recording.prompt_length :]

    def _live_end(self, row: int) -> int:
        generated = self._generated(row)
        ends = [end for start, end in self._blocks if self._recording.eos_id in generated[start:end]]
        return ends[0] if ends else len(generated)

    def _filled_at(self, row: int) -> list[int]:
        """The 1-based call that filled each generated position, calls that filled nothing not counted."""
        recording = self._recording
        arrays = [
            after[row][recording.prompt_length :]
            for after, filled in zip(self._after_decode, recording.decode_transfers, strict=True)
            if filled
        ]
        return [
            next((call for call, array in enumerate(arrays, start=1) if array[place] != recording.mask_id), -1)
            for place in range(recording.gen_length)
        ]


def strategy_options(recording: Recording, prompts: Sequence[Sequence[int]]) -> dict[str, object]:
    """The strategy of a run as a client would write it; NotSupportedError names what has no counterpart."""
    if recording.runner != "BlockWise":
        raise NotSupportedError(f"runner {recording.runner}")
    if recording.use_shift:
        raise NotSupportedError("logits shifted by one position")
    if recording.cache_update_freq is not None:
        raise NotSupportedError("cache refresh every so many steps")
    if recording.start_block_align and recording.prompt_length % recording.block_length:
        raise NotSupportedError("blocks aligned to position 0 in a bidirectional model")
    if any(recording.mask_id in ids for ids in prompts):
        raise NotSupportedError("prompts of different lengths filled up with masks")
    extra = recording.model_extra or {}
    knobs = decoder_knobs(recording.decoder, {name: extra[name] for name in KNOBS if name in extra})
    cache = recording.cache or "none"
    return {"decoder": recording.decoder, "cache": cache, "block_length": recording.block_length, **knobs}


def until(tokens: Sequence[int], stop_id: int) -> list[int]:
    """The tokens before the first ``stop_id``."""
    return list(tokens[: tokens.index(stop_id)]) if stop_id in tokens else list(tokens)


def load(folder: Path) -> Iterator[Case]:
    """Every run recorded with the model in ``folder``."""
    try:
        recordings = Recordings.model_validate_json((folder / "cases.json").read_bytes())
        tensors = load_file(folder / "cases.safetensors")
    except (ValueError, OSError) as error:
        yield UnreadableCase(DinferCase.kind, folder.name, complaint(error))
        return
    for number, entry in enumerate(recordings.cases):
        try:
            yield DinferCase(folder, Recording.model_validate(entry), tensors)
        except (ValueError, KeyError) as error:
            yield UnreadableCase(DinferCase.kind, f"{folder.name}/{entry.get('id', number)}", complaint(error))
