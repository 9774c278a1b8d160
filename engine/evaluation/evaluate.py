"""Exact-match accuracy of a strategy on a set of questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.errors import ConfigError
from engine.evaluation.report import EvalReport, KindResult
from engine.evaluation.scoring import matches
from engine.evaluation.tasks.sample import Sample
from engine.llm_engine import LLMEngine
from engine.outputs import RequestOutput
from engine.sampling_params import SamplingParams
from engine.strategy import Strategy


@dataclass(frozen=True, slots=True)
class EvalProgress:
    """Prompts finished so far."""

    finished: int
    total: int


def evaluate(
    engine: LLMEngine,
    samples: Sequence[Sample],
    sampling: SamplingParams,
    strategy: Strategy | None = None,
    on_progress: Callable[[EvalProgress], None] | None = None,
) -> EvalReport:
    """Complete every prompt and score it. Prompts go through the chat template where the model has one."""
    if not samples:
        raise ConfigError("There is nothing to evaluate: the data set is empty.", "data")
    strategy = strategy or engine.strategy({})
    prompts = [_prompt(engine, sample) for sample in samples]
    started = time.monotonic()
    outputs = engine.generate(prompts, sampling, strategy, _counter(on_progress))
    return report(samples, outputs, strategy.to_dict(), time.monotonic() - started)


def report(
    samples: Sequence[Sample], outputs: Sequence[RequestOutput], strategy: dict[str, object], seconds: float
) -> EvalReport:
    """Score finished outputs, kind by kind in the order of first appearance."""
    kinds = tuple(
        _kind_result(kind, [pair for pair in zip(samples, outputs, strict=True) if pair[0].kind == kind])
        for kind in dict.fromkeys(sample.kind for sample in samples)
    )
    return EvalReport(strategy, kinds, seconds)


def _kind_result(kind: str, pairs: Sequence[tuple[Sample, RequestOutput]]) -> KindResult:
    return KindResult(
        kind=kind,
        right=sum(matches(sample.answer, output.text) for sample, output in pairs),
        total=len(pairs),
        forwards=sum(output.usage.forwards for _, output in pairs),
        tokens=sum(output.usage.completion_tokens for _, output in pairs),
    )


def _prompt(engine: LLMEngine, sample: Sample) -> list[int]:
    if engine.tokenizer.has_chat_template:
        return engine.tokenizer.apply_chat_template([{"role": "user", "content": sample.prompt}])
    return engine.tokenizer.encode(sample.prompt)


def _counter(on_progress: Callable[[EvalProgress], None] | None) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    return lambda finished, total: on_progress(EvalProgress(finished, total))
