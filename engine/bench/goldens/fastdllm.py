"""Generations by LLaDA's own loop and by Fast-dLLM (no cache, prefix cache, dual cache)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, Field

from engine.bench.goldens.case import Case, GenerationCase, Row, RowRun, UnreadableCase, first_difference
from engine.bench.goldens.complaints import complaint
from engine.bench.goldens.lockstep import block_bounds, lock_step
from engine.bench.goldens.results import Mode, NotSupportedError
from engine.sampling_params import SamplingParams

CACHES: Mapping[str, str] = {
    "llada.generate": "none",
    "fast_dllm.generate": "none",
    "fast_dllm.generate_with_prefix_cache": "prefix",
    "fast_dllm.generate_with_dual_cache": "dual",
}
"""The cache policy of each function that can be expressed."""

LLADA_EOS_ID, LLADA_EOT_ID = 126081, 126348
"""The ids that LLaDA's ``logits_eos_inf`` and ``confidence_eos_eot_inf`` name literally."""


class AnyParams(BaseModel):
    """Arguments of a recorded call of any function."""

    model_config = ConfigDict(extra="allow")

    mask_id: int


class Params(AnyParams):
    """Arguments of the functions of ``CACHES``. Unknown ones are refused: they may change the result."""

    model_config = ConfigDict(extra="forbid")

    gen_length: Annotated[int, Ge(1)]
    block_length: Annotated[int, Ge(1)]
    steps: Annotated[int, Ge(1)]
    temperature: float = 0.0
    cfg_scale: float = 0.0
    remasking: str = "low_confidence"
    threshold: float | None = None
    factor: float | None = None
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False


class Expected(BaseModel):
    output_ids: list[list[int]]
    nfe: int
    decode_forward: list[list[int]]


class Recording(BaseModel):
    """One file."""

    id: str
    checkpoint: str
    function: str
    params: AnyParams
    prompt_ids: Annotated[list[list[int]], Field(min_length=1)]
    attention_mask: list[list[int]] | None
    torch_seed: int | None
    optional: bool
    quirk: str | None
    expected: Expected


class FastDllmCase(GenerationCase):
    """One recorded call: every row of its batch becomes a request, left padding stripped."""

    kind = "fastdllm"

    def __init__(self, folder: Path, recording: Recording) -> None:
        self.id = recording.id
        self.required = not recording.optional
        self.checkpoint = folder / "checkpoints" / recording.checkpoint
        self.mask_token_id = recording.params.mask_id
        self._recording = recording

    def rows(self, mode: Mode) -> list[Row]:
        recording = self._recording
        if recording.function not in CACHES:
            raise NotSupportedError(f"function {recording.function}")
        params = Params.model_validate(recording.params.model_dump())
        if recording.optional and recording.torch_seed is not None:
            raise NotSupportedError("random numbers of torch's global generator")
        options = strategy_options(recording.function, params, mode)
        sampling = SamplingParams(
            max_tokens=params.gen_length, temperature=params.temperature, seed=recording.torch_seed, ignore_eos=True
        )
        prompts = strip_padding(recording.prompt_ids, recording.attention_mask)
        return [
            Row(prompt_ids=ids, sampling=sampling, options=options, canvas_len=len(ids) + params.gen_length)
            for ids in prompts
        ]

    def differences(self, mode: Mode, runs: Sequence[RowRun]) -> list[str]:
        params = Params.model_validate(self._recording.params.model_dump())
        expected = self._recording.expected
        blocks = block_bounds(0, params.gen_length, params.block_length)
        batch = lock_step([run.canvas.revealed_at for run in runs], blocks, [run.usage.forwards for run in runs])
        found = self._forward_differences(mode, batch.forwards)
        for index, run in enumerate(runs):
            wanted = expected.output_ids[index][-params.gen_length :]
            found += first_difference(f"row {index} tokens", wanted, run.token_ids)
            if mode == "parity":
                filled_at = batch.filled_at[index]
                found += first_difference(f"row {index} forward", expected.decode_forward[index], filled_at)
        return found

    def _forward_differences(self, mode: Mode, forwards: int) -> list[str]:
        wanted = self._recording.expected.nfe
        if mode == "parity" and forwards != wanted:
            return [f"forwards: {forwards}, expected {wanted}"]
        if forwards > wanted:
            return [f"forwards: {forwards}, the reference needs {wanted}"]
        return []


def load(folder: Path) -> Iterator[Case]:
    """Every case file of a folder."""
    for file in sorted((folder / "cases").glob("*.json")):
        try:
            yield FastDllmCase(folder, Recording.model_validate_json(file.read_bytes()))
        except ValueError as error:
            yield UnreadableCase(FastDllmCase.kind, file.stem, complaint(error))


def strategy_options(function: str, params: Params, mode: Mode) -> dict[str, object]:
    """The strategy of a recorded call as a client would write it."""
    options: dict[str, object] = {"cache": CACHES[function], "block_length": params.block_length}
    if params.factor is not None:
        options |= {"decoder": "factor", "factor": params.factor, "reference_tail": True}
    elif params.threshold is not None:
        options |= {"decoder": "threshold", "threshold": params.threshold}
    else:
        num_blocks = params.gen_length // params.block_length
        options |= {"decoder": params.remasking, "steps": params.steps // num_blocks}
        if function == "llada.generate" and mode == "parity":
            options["run_all_steps"] = True
    if params.cfg_scale:
        options["cfg_scale"] = params.cfg_scale
    if params.logits_eos_inf:
        options["banned_tokens"] = [LLADA_EOS_ID]
    if params.confidence_eos_eot_inf:
        options["deferred_tokens"] = [LLADA_EOS_ID, LLADA_EOT_ID]
    return options


def strip_padding(
    prompts: Sequence[Sequence[int]], attention_mask: Sequence[Sequence[int]] | None
) -> list[tuple[int, ...]]:
    """The rows of a left-padded batch as prompts of their own length: rotary positions are relative, so that the
    result is the same."""
    if attention_mask is None:
        return [tuple(ids) for ids in prompts]
    return [
        tuple(token for token, real in zip(ids, mask, strict=True) if real)
        for ids, mask in zip(prompts, attention_mask, strict=True)
    ]
