"""Accuracy of strategies on a set of questions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from engine.errors import ConfigError, ContextLengthError
from engine.evaluation.comparison import Entry
from engine.evaluation.formats.format import Format
from engine.evaluation.formats.table import PLAIN
from engine.evaluation.prompts import Mode, chosen_mode, prompt_ids
from engine.evaluation.report import Answer, EvalReport
from engine.evaluation.tasks.sample import Sample
from engine.evaluation.verifiers import EXACT, Verdict, Verifier
from engine.llm_engine import LLMEngine
from engine.outputs import RequestOutput
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest
from engine.strategy import Strategy

TOO_LONG = "prompt too long"


@dataclass(frozen=True, slots=True)
class EvalProgress:
    """Answers finished so far, or marked; only marks that take long are counted."""

    finished: int
    total: int
    stage: Literal["answers", "marks"] = "answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """How questions are asked, how often, and how answers are marked. ``shots`` are solved examples before each."""

    format: Format = PLAIN
    verifier: Verifier = EXACT
    shots: tuple[Sample, ...] = ()
    mode: Mode = "auto"
    num_samples: int = 1


OnProgress = Callable[[EvalProgress], None]


def evaluate(
    engine: LLMEngine,
    samples: Sequence[Sample],
    sampling: SamplingParams,
    strategy: Strategy | None = None,
    on_progress: OnProgress | None = None,
    config: EvalConfig | None = None,
) -> EvalReport:
    """Complete every prompt, ``num_samples`` times, and mark the answers.

    Sample i of a prompt is drawn with the seed + i. A prompt too long for the model counts as a wrong answer;
    ContextLengthError when all are.
    """
    config = config or EvalConfig()
    if not samples:
        raise ConfigError("There is nothing to evaluate: the data set is empty.", "data")
    if config.num_samples > 1 and sampling.temperature == 0:
        raise ConfigError("Several samples need a temperature above 0; at 0 all are the same.", "samples")
    strategy = strategy or engine.strategy({})
    requests = _requests(engine, samples, sampling, strategy, config)
    started = time.monotonic()
    outputs = _complete(engine, requests, on_progress)
    seconds = time.monotonic() - started
    repeated = [sample for sample in samples for _ in range(config.num_samples)]
    verdicts = _marks(config.verifier, repeated, outputs, on_progress)
    return report(repeated, outputs, strategy.to_dict(), seconds, verdicts, config.num_samples)


def evaluate_all(
    engine: LLMEngine,
    samples: Sequence[Sample],
    sampling: SamplingParams,
    strategies: Mapping[str, Strategy],
    on_progress: Callable[[str, EvalProgress], None] | None = None,
    config: EvalConfig | None = None,
) -> tuple[Entry, ...]:
    """Evaluate labelled strategies on the same prompts, one after the other; ``on_progress`` is told the label.

    Before its clock starts, each strategy answers one prompt, so that none pays for the memory that it needs first.
    """
    config = config or EvalConfig()
    entries = []
    for label, strategy in strategies.items():
        _warm_up(engine, samples, sampling, strategy, config)
        notify = None if on_progress is None else partial(on_progress, label)
        entries.append(Entry(label, evaluate(engine, samples, sampling, strategy, notify, config)))
    return tuple(entries)


def _warm_up(
    engine: LLMEngine, samples: Sequence[Sample], sampling: SamplingParams, strategy: Strategy, config: EvalConfig
) -> None:
    """Answer the first prompt that is not too long."""
    for sample in samples:
        with suppress(ContextLengthError):
            evaluate(engine, [sample], sampling, strategy, None, replace(config, verifier=EXACT, num_samples=1))
            return


def report(
    samples: Sequence[Sample],
    outputs: Sequence[RequestOutput],
    strategy: dict[str, object],
    seconds: float,
    verdicts: Sequence[Verdict] | None = None,
    num_samples: int = 1,
) -> EvalReport:
    """Finished outputs, one per sample, as a report; without ``verdicts`` they are marked by their text."""
    if verdicts is None:
        verdicts = EXACT.judge_all(samples, [output.text for output in outputs])
    answers = tuple(_answer(*one) for one in zip(samples, outputs, verdicts, strict=True))
    return EvalReport(strategy, answers, seconds, num_samples)


def _requests(
    engine: LLMEngine, samples: Sequence[Sample], sampling: SamplingParams, strategy: Strategy, config: EvalConfig
) -> list[GenerationRequest]:
    """One per sample and draw, the draws of a prompt side by side. They share K/V with each other alone: what a
    strategy costs must not depend on what was asked before."""
    mode = chosen_mode(config.mode, engine.tokenizer)
    if mode == "completion":
        sampling = replace(sampling, stop=(*sampling.stop, *config.format.stop))
    seed = engine.config.seed if sampling.seed is None else sampling.seed
    salt = secrets.token_hex(8)
    return [
        GenerationRequest(
            request_id=f"eval-{place}-{draw}",
            prompt=prompt,
            sampling=replace(sampling, seed=seed + draw),
            strategy=strategy,
            stream="final",
            cache_salt=salt,
        )
        for place, sample in enumerate(samples)
        for prompt in [prompt_ids(engine.tokenizer, config.format, sample, config.shots, mode)]
        for draw in range(config.num_samples)
    ]


def _complete(
    engine: LLMEngine, requests: Sequence[GenerationRequest], on_progress: OnProgress | None
) -> list[RequestOutput]:
    """Outputs in order; one without text, tokens or forwards stands for a prompt that is too long."""
    fitting: list[GenerationRequest] = []
    too_long: dict[str, ContextLengthError] = {}
    for request in requests:
        try:
            engine.validate(request)
            fitting.append(request)
        except ContextLengthError as error:
            too_long[request.request_id] = error
    if not fitting:
        raise next(iter(too_long.values()))
    notify = None if on_progress is None else lambda finished, total: on_progress(EvalProgress(finished, total))
    found = {output.request_id: output for output in engine.run(fitting, notify)}
    return [found.get(request.request_id, RequestOutput(request_id=request.request_id)) for request in requests]


def _marks(
    verifier: Verifier, samples: Sequence[Sample], outputs: Sequence[RequestOutput], on_progress: OnProgress | None
) -> list[Verdict]:
    """Mark what was answered."""
    answered = [place for place, output in enumerate(outputs) if output.finished]
    notify = (
        None if on_progress is None else lambda finished, total: on_progress(EvalProgress(finished, total, "marks"))
    )
    found = verifier.judge_all([samples[one] for one in answered], [outputs[one].text for one in answered], notify)
    by_place = dict(zip(answered, found, strict=True))
    return [by_place.get(place, Verdict(False, TOO_LONG)) for place in range(len(outputs))]


def _answer(sample: Sample, output: RequestOutput, verdict: Verdict) -> Answer:
    usage = output.usage
    return Answer(
        kind=sample.kind,
        right=verdict.right,
        forwards=usage.forwards,
        tokens=usage.completion_tokens,
        positions=usage.positions_computed,
        name=sample.name,
        text=output.text,
        reason=verdict.reason,
    )
