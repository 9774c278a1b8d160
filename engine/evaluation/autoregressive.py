"""Greedy decoding of an autoregressive checkpoint, the baseline of a model that was adapted from it.

The engine serves diffusion models only; this one runs on transformers' own classes, one forward per token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from engine.errors import CheckpointError
from engine.evaluation.evaluate import EvalConfig, EvalProgress, OnProgress, report
from engine.evaluation.prompts import chosen_mode, prompt_ids
from engine.evaluation.report import EvalReport
from engine.evaluation.tasks.sample import Sample
from engine.models.registry import FAMILIES
from engine.outputs import RequestOutput, Usage
from engine.text_stream import TextIncrement, TextStream
from engine.tokenizer import load_tokenizer

LABEL = "autoregressive"


def is_autoregressive(folder: Path) -> bool:
    """Whether ``config.json`` names a causal language model of transformers that is none of the diffusion families."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    names = config.get("architectures") if isinstance(config, dict) else None
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    return isinstance(names, list) and len(names) == 1 and names[0] in known and names[0] not in FAMILIES


class AutoregressiveModel:
    """A causal language model and its ``tokenizer``."""

    def __init__(self, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder} cannot be loaded by transformers: {error}", str(folder)) from error
        self._model: Any = loaded.eval().to(torch.device(device))
        self._stops = self._stop_ids()
        self.tokenizer = load_tokenizer(folder, self._stops)

    def evaluate(
        self,
        samples: Sequence[Sample],
        max_tokens: int,
        config: EvalConfig | None = None,
        on_progress: OnProgress | None = None,
        at_once: int = 16,
    ) -> EvalReport:
        """Complete every prompt once, ``at_once`` together, and mark the answers; an answer's ``forwards`` are its
        tokens and those that ended it. Completions end at the format's stop strings as the engine's do."""
        config = config or EvalConfig()
        mode = chosen_mode(config.mode, self.tokenizer)
        stop = config.format.stop if mode == "completion" else ()
        prompts = [prompt_ids(self.tokenizer, config.format, sample, config.shots, mode) for sample in samples]
        started = time.monotonic()
        outputs: list[RequestOutput] = []
        for first in range(0, len(prompts), at_once):
            outputs += self._complete(prompts[first : first + at_once], max_tokens, stop)
            if on_progress is not None:
                on_progress(EvalProgress(len(outputs), len(samples)))
        seconds = time.monotonic() - started
        verdicts = config.verifier.judge_all(samples, [output.text for output in outputs])
        return report(samples, outputs, {"decoder": LABEL}, seconds, verdicts)

    @torch.inference_mode()
    def _complete(self, prompts: Sequence[list[int]], max_tokens: int, stop: Sequence[str]) -> list[RequestOutput]:
        stops = self._stops
        longest = max(map(len, prompts))
        padded = torch.tensor([[stops[0]] * (longest - len(prompt)) + prompt for prompt in prompts])
        lengths = torch.tensor([[len(prompt)] for prompt in prompts])
        generated = self._model.generate(
            padded.to(self._model.device),
            attention_mask=(torch.arange(longest) >= longest - lengths).long().to(self._model.device),
            max_new_tokens=max_tokens,
            do_sample=False,
            pad_token_id=stops[0],
            eos_token_id=stops,
        )
        rows = generated[:, longest:].tolist()
        return [self._output(prompt, row, stop) for prompt, row in zip(prompts, rows, strict=True)]

    def _output(self, prompt: list[int], generated: list[int], stop: Sequence[str]) -> RequestOutput:
        end = next((place for place, token in enumerate(generated) if token in self._stops), None)
        token_ids = generated if end is None else generated[:end]
        forwards = len(generated) if end is None else end + 1
        stream = TextStream(self.tokenizer.detokenizer(), stop)
        shown: list[TextIncrement] = []
        for place, token in enumerate(token_ids, 1):
            shown.append(stream.add([token], last=place == len(token_ids)))
            if shown[-1].stop is not None:
                end, forwards = place, place
                break
        return RequestOutput(
            request_id=LABEL,
            text="".join(increment.text for increment in shown),
            token_ids=tuple(token for increment in shown for token in increment.token_ids),
            usage=Usage(
                prompt_tokens=len(prompt),
                completion_tokens=stream.num_tokens,
                forwards=forwards,
                denoising_steps=forwards,
                positions_computed=len(prompt) + forwards - 1,
            ),
            finish_reason="length" if end is None else "stop",
        )

    def _stop_ids(self) -> list[int]:
        value = self._model.generation_config.eos_token_id
        stops = [value] if isinstance(value, int) else list(value or ())
        if not stops:
            raise CheckpointError(
                "generation_config.json names no eos_token_id: completions would not end", "eos_token_id"
            )
        return stops
