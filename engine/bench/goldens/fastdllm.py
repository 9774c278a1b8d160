"""Generations by the original loops of LLaDA and Dream and by Fast-dLLM (no cache, prefix cache, dual cache)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from engine.bench.goldens import fastdllm_dream, fastdllm_llada
from engine.bench.goldens.case import Case, GenerationCase, Row, RowRun, UnreadableCase, first_difference
from engine.bench.goldens.complaints import complaint
from engine.bench.goldens.fastdllm_recording import Draws, Expression, Recording
from engine.bench.goldens.forwards import forward_cases
from engine.bench.goldens.lockstep import block_bounds, lock_step
from engine.bench.goldens.results import MODES, Mode, NotSupportedError

FUNCTIONS: Mapping[str, Callable[[Recording], Expression]] = {
    "llada.generate": fastdllm_llada.express,
    "fast_dllm.generate": fastdllm_llada.express,
    "fast_dllm.generate_with_prefix_cache": fastdllm_llada.express,
    "fast_dllm.generate_with_dual_cache": fastdllm_llada.express,
    "dream.diffusion_generate": fastdllm_dream.express_schedule,
    "fast_dllm_dream.diffusion_generate": fastdllm_dream.express_threshold,
    "fast_dllm_dream.block_diffusion_generate": fastdllm_dream.express_blocks,
}
"""How the engine expresses a call of each function."""


class FastDllmCase(GenerationCase):
    """One recorded call: every row of its batch becomes a request, left padding stripped."""

    kind = "fastdllm"

    def __init__(self, folder: Path, recording: Recording) -> None:
        self.id = recording.id
        self.required = not recording.optional
        self.checkpoint = folder / "checkpoints" / recording.checkpoint
        self.mask_token_id = recording.params.mask_id
        self.modes = ("parity",) if recording.function in fastdllm_dream.PARITY_ONLY else MODES
        self._recording = recording

    def rows(self, mode: Mode) -> list[Row]:
        recording = self._recording
        if recording.optional and recording.torch_seed is not None:
            raise NotSupportedError("random numbers of torch's global generator")
        expression = self._expression()
        options = {**expression.options, **(expression.parity_options if mode == "parity" else {})}
        prompts = strip_padding(recording.prompt_ids, recording.attention_mask)
        draws: Sequence[Draws | None] = expression.draws or [None] * len(prompts)
        return [
            Row(
                prompt_ids=ids,
                sampling=expression.sampling,
                options=options,
                canvas_len=len(ids) + expression.gen_length,
                draws=own,
            )
            for ids, own in zip(prompts, draws, strict=True)
        ]

    def differences(self, mode: Mode, runs: Sequence[RowRun]) -> list[str]:
        expression, expected = self._expression(), self._recording.expected
        blocks = block_bounds(0, expression.gen_length, expression.block_length)
        batch = lock_step([run.canvas.revealed_at for run in runs], blocks, [run.usage.forwards for run in runs])
        found = self._forward_differences(mode, batch.forwards)
        for index, run in enumerate(runs):
            wanted = expected.output_ids[index][-expression.gen_length :]
            found += first_difference(f"row {index} tokens", wanted, run.token_ids)
            if mode == "parity":
                filled_at = batch.filled_at[index]
                found += first_difference(f"row {index} forward", expected.decode_forward[index], filled_at)
        return found

    def _expression(self) -> Expression:
        express = FUNCTIONS.get(self._recording.function)
        if express is None:
            raise NotSupportedError(f"function {self._recording.function}")
        return express(self._recording)

    def _forward_differences(self, mode: Mode, forwards: int) -> list[str]:
        wanted = self._recording.expected.nfe
        if mode == "parity" and forwards != wanted:
            return [f"forwards: {forwards}, expected {wanted}"]
        if forwards > wanted:
            return [f"forwards: {forwards}, the reference needs {wanted}"]
        return []


def load(folder: Path) -> Iterator[Case]:
    """Every case file of a folder, and the recorded forwards of its checkpoints."""
    yield from forward_cases(folder / "checkpoints")
    for file in sorted((folder / "cases").glob("*.json")):
        try:
            yield FastDllmCase(folder, Recording.model_validate_json(file.read_bytes()))
        except ValueError as error:
            yield UnreadableCase(FastDllmCase.kind, file.stem, complaint(error))


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
