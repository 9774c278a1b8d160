"""Collect trajectories: decode prompts with the engine, mark the answers, keep all attempts in a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from engine.decoding import DECODERS
from engine.errors import ConfigError, InvalidRequestError
from engine.evaluation.formats.format import Format
from engine.evaluation.formats.table import PLAIN
from engine.evaluation.prompts import prompt_ids
from engine.evaluation.tasks.sample import Sample
from engine.evaluation.tasks.table import training_samples
from engine.evaluation.verifiers import EXACT, Verdict, Verifier
from engine.llm_engine import LLMEngine
from engine.outputs import CanvasStep, RequestOutput
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest
from engine.strategy import Strategy
from engine.training.noise import draw_canvas_len
from engine.training.trajectories import RIGHT, Attempt, CollectionWriter, Heading

CHUNK = 128
UNFINISHED, EMPTY = "unfinished", "empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectConfig:
    """How trajectories are made.

    Each question is decoded ``samples_per_prompt`` times. Without an attention mask the length of the canvas is
    drawn as in training, where the question has a reference answer; ``max_tokens`` bounds it. Without a ``verifier``
    every finished answer counts as right.
    """

    format: Format = PLAIN
    verifier: Verifier | None = EXACT

    samples_per_prompt: int = 1
    temperature: float = 0.0
    max_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples_per_prompt > 1 and not self.temperature:
            message = "several samples of a prompt are all the same at temperature 0; give a temperature too"
            raise ConfigError(message, "temperature")


def training_questions(count: int, seed: int) -> list[Sample]:
    """The first distinct prompts of the built-in tasks' training stream; never a held-out one."""
    found: dict[str, Sample] = {}
    for sample in islice(training_samples(seed), 50 * count):
        found.setdefault(sample.prompt, sample)
        if len(found) == count:
            break
    return list(found.values())


def check_strategy(strategy: Strategy) -> None:
    """Refuse strategies whose states do not follow from the step at which each position was filled."""
    if DECODERS.get(strategy.decoder).edits:
        message = f"{strategy.decoder} changes tokens that it has filled in: such a decoding has no trajectory to learn"
        raise InvalidRequestError(message, "decoder")
    if strategy.length is not None:
        raise InvalidRequestError("a canvas that grows has no trajectory to learn", "initial_length")


class Collector:
    """Decodes questions in chunks and marks the answers."""

    def __init__(self, engine: LLMEngine, strategy: Strategy, config: CollectConfig) -> None:
        check_strategy(strategy)
        self._engine = engine
        self._strategy = strategy
        self._config = config

    def run(
        self, questions: Sequence[Sample], writer: CollectionWriter, on_progress: Callable[[int, int], None]
    ) -> None:
        """Make the attempts that the file lacks; ``on_progress(attempts, of)``."""
        per_prompt = self._config.samples_per_prompt
        total = len(questions) * per_prompt
        on_progress(len(writer.attempts), total)
        while (done := len(writer.attempts)) < total:
            indices = range(done, min(done + CHUNK, total))
            writer.add(self._attempts(indices, [questions[index // per_prompt] for index in indices]))
            on_progress(len(writer.attempts), total)

    def _attempts(self, indices: range, samples: Sequence[Sample]) -> list[Attempt]:
        requests = [self._request(index, sample) for index, sample in zip(indices, samples, strict=True)]
        decoded = [_decoded(output) for output in self._engine.run(requests)]
        verdicts = self._verdicts(samples, decoded)
        return [
            Attempt(
                index=index,
                kind=sample.kind,
                seed=self._config.seed + index,
                verdict=verdict,
                prompt_ids=tuple(map(int, request.prompt)),
                canvas_ids=found.canvas.token_ids,
                revealed_at=found.canvas.revealed_at,
                answer_len=found.answer_len,
            )
            for index, sample, request, found, verdict in zip(
                indices, samples, requests, decoded, verdicts, strict=True
            )
        ]

    def _request(self, index: int, sample: Sample) -> GenerationRequest:
        config = self._config
        sampling = SamplingParams(
            max_tokens=self._canvas_len(index, sample), temperature=config.temperature, seed=config.seed + index
        )
        return GenerationRequest(
            request_id=f"trajectory-{index}",
            prompt=prompt_ids(self._engine.tokenizer, config.format, sample, (), "auto"),
            sampling=sampling,
            strategy=self._strategy,
            stream="step",
        )

    def _canvas_len(self, index: int, sample: Sample) -> int:
        config = self._config
        if self._engine.spec.attention == "block_causal" or not sample.answer:
            return config.max_tokens
        answer_len = len(self._engine.tokenizer.encode(sample.answer)) + 1
        drawn = draw_canvas_len(answer_len, np.random.default_rng((config.seed, index)))
        return min(drawn, config.max_tokens)

    def _verdicts(self, samples: Sequence[Sample], decoded: Sequence[Decoded]) -> list[str]:
        """Only answers that ended, and that are not empty, are looked at."""
        verdicts = [UNFINISHED if not found.answer_len else EMPTY for found in decoded]
        places = [place for place, found in enumerate(decoded) if found.answer_len > 1]
        asked = [samples[place] for place in places]
        texts = [self._engine.tokenizer.decode(decoded[place].answer_ids) for place in places]
        verifier = self._config.verifier
        marks = [Verdict(True)] * len(places) if verifier is None else verifier.judge_all(asked, texts)
        for place, mark in zip(places, marks, strict=True):
            verdicts[place] = RIGHT if mark.right else mark.reason
        return verdicts


class Decoded(NamedTuple):
    """The canvas at the end; the answer with its stop id is its beginning, 0 tokens where it has not ended."""

    canvas: CanvasStep
    answer_len: int

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """Without the stop id."""
        return self.canvas.token_ids[: self.answer_len - 1]


def _decoded(output: RequestOutput) -> Decoded:
    assert output.canvas is not None, "the request asked for steps"
    stop = output.stop_reason
    return Decoded(output.canvas, output.canvas.token_ids.index(stop) + 1 if isinstance(stop, int) else 0)


def heading(
    strategy: Strategy, config: CollectConfig, model: str, questions: str, num_prompts: int, verifier: str
) -> Heading:
    """What is written above the attempts."""
    return Heading(
        model=model,
        questions=questions,
        num_prompts=num_prompts,
        samples_per_prompt=config.samples_per_prompt,
        strategy=strategy.to_dict(),
        block_length=strategy.block_length,
        verifier=verifier,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        seed=config.seed,
    )
