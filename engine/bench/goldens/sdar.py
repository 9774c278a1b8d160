"""Block-diffusion generations by SDAR's own loop, four strategies, and its filtering of the distribution."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge
from pydantic import BaseModel, Field

from engine.bench.goldens.case import Case, GenerationCase, Row, RowRun, UnreadableCase, first_difference
from engine.bench.goldens.complaints import complaint
from engine.bench.goldens.knobs import decoder_knobs
from engine.bench.goldens.results import Mode
from engine.bench.goldens.sdar_sampling import load_sampling
from engine.sampling_params import SamplingParams


class TraceStep(NamedTuple):
    """One denoising step: ``positions`` within the absolute block, what was written there and how sure it was."""

    block: int
    step: int
    positions: list[int]
    tokens: list[int]
    confidences: list[float]


class Forwards(BaseModel):
    prefill: int
    denoise: int
    commit: int
    total: int


class Expected(BaseModel):
    output_ids: list[int]
    forwards: Forwards
    completion_ids: list[int]
    finish_reason: Literal["stop", "length"]
    trace: list[TraceStep]


class Run(BaseModel):
    """One strategy of a case."""

    strategy: str
    confidence_threshold: float | None = None
    eb_threshold: float | None = None
    expected: Expected

    @property
    def name(self) -> str:
        knobs = [value for value in (self.confidence_threshold, self.eb_threshold) if value is not None]
        return "@".join([self.strategy, *map(str, knobs)])


class Recording(BaseModel):
    """One file: a prompt and its runs."""

    id: str
    checkpoint: str
    prompt_ids: Annotated[list[int], Field(min_length=1)]
    mask_id: int
    block_length: Annotated[int, Ge(1)]
    denoising_steps: Annotated[int, Ge(1)]
    gen_length: Annotated[int, Ge(1)]
    temperature: float
    top_k: int
    top_p: float
    stop_ids: list[int] | None
    runs: Annotated[list[Run], Field(min_length=1)]

    @property
    def canvas_len(self) -> int:
        """Prompt and generation, rounded up to whole blocks."""
        return -(-(len(self.prompt_ids) + self.gen_length) // self.block_length) * self.block_length


class SdarCase(GenerationCase):
    """One run of a case. The recorded draw took the most probable token while temperature shaped its confidence."""

    kind = "sdar"
    required = True

    def __init__(self, folder: Path, recording: Recording, run: Run) -> None:
        self.id = f"{recording.id}:{run.name}"
        self.checkpoint = folder / recording.checkpoint
        self.mask_token_id = recording.mask_id
        self._recording = recording
        self._run = run

    def rows(self, mode: Mode) -> list[Row]:
        recording = self._recording
        sampling = SamplingParams(
            max_tokens=recording.gen_length,
            temperature=recording.temperature,
            top_k=recording.top_k,
            top_p=recording.top_p,
            stop_token_ids=frozenset(recording.stop_ids or ()),
            ignore_eos=True,
            confidence="sampled",
            noise=False,
        )
        return [
            Row(
                prompt_ids=tuple(recording.prompt_ids),
                sampling=sampling,
                options=strategy_options(recording, self._run),
                canvas_len=recording.canvas_len,
            )
        ]

    def differences(self, mode: Mode, runs: Sequence[RowRun]) -> list[str]:
        (run,) = runs
        expected = self._run.expected
        found = first_difference("completion", expected.completion_ids, run.token_ids)
        if run.finish_reason != expected.finish_reason:
            found.append(f"finish reason: {run.finish_reason}, expected {expected.finish_reason}")
        if mode == "parity":
            return found + self._parity_differences(run)
        return found + default_forward_differences(expected.forwards.denoise, run)

    def _parity_differences(self, run: RowRun) -> list[str]:
        expected, prompt_len = self._run.expected, len(self._recording.prompt_ids)
        found = []
        if run.usage.forwards != expected.forwards.total:
            found.append(f"forwards: {run.usage.forwards}, expected {expected.forwards.total}")
        generated = expected.output_ids[prompt_len:]
        found += first_difference("canvas", generated, run.canvas.token_ids)
        steps = trace_steps(expected.trace, self._recording.block_length, self._recording.canvas_len)[prompt_len:]
        return found + first_difference("step", steps, run.canvas.revealed_at)


def default_forward_differences(denoising_steps: int, run: RowRun) -> list[str]:
    """In the engine's own plan every forward decides something, and none is needed beyond the reference's."""
    found = []
    if run.usage.forwards != run.usage.denoising_steps:
        found.append(f"forwards: {run.usage.forwards} for {run.usage.denoising_steps} denoising steps")
    if run.usage.denoising_steps > denoising_steps:
        found.append(f"denoising steps: {run.usage.denoising_steps}, the reference needs {denoising_steps}")
    return found


def strategy_options(recording: Recording, run: Run) -> dict[str, object]:
    """The strategy of a run as a client would write it."""
    given: dict[str, object] = {"steps": recording.denoising_steps}
    if run.confidence_threshold is not None:
        given["threshold"] = run.confidence_threshold
    if run.eb_threshold is not None:
        given["gamma"] = run.eb_threshold
    knobs = decoder_knobs(run.strategy, given, frozenset({"steps"}))
    return {"decoder": run.strategy, "cache": "block", "block_length": recording.block_length, **knobs}


def trace_steps(trace: Sequence[TraceStep], block_length: int, canvas_len: int) -> list[int]:
    """The 1-based denoising step that filled each position of the canvas; 0 where none did."""
    steps = [0] * canvas_len
    for number, entry in enumerate(trace, start=1):
        for position in entry.positions:
            steps[entry.block * block_length + position] = number
    return steps


def load(folder: Path) -> Iterator[Case]:
    """Every run of every case, the recorded distributions, and what the index promises but the folder lacks."""
    files = sorted((folder / "cases").glob("*.json"))
    for file in files:
        try:
            recording = Recording.model_validate_json(file.read_bytes())
        except ValueError as error:
            yield UnreadableCase(SdarCase.kind, file.stem, complaint(error))
        else:
            yield from (SdarCase(folder, recording, run) for run in recording.runs)
    for name in sorted(_indexed(folder) - {file.stem for file in files}):
        yield UnreadableCase(SdarCase.kind, name, "index.json names it, but there is no such file")
    yield from load_sampling(folder)


def _indexed(folder: Path) -> set[str]:
    index = folder / "index.json"
    return set(json.loads(index.read_text(encoding="utf-8"))) if index.is_file() else set()
