"""Whether answers are right: by their text, by their number, or by running their code."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from engine.evaluation.formats.format import VerifierName
from engine.evaluation.numbers import final_number
from engine.evaluation.programs import program
from engine.evaluation.sandbox.host import Limits, run_program
from engine.evaluation.scoring import matches
from engine.evaluation.tasks.sample import Sample

OnVerified = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` says in a word why an answer is not right, and for code what happened."""

    right: bool
    reason: str = ""


class Verifier(ABC):
    """Marks answers. Safe to use from several threads."""

    @abstractmethod
    def judge(self, sample: Sample, text: str) -> Verdict:
        """Mark one answer."""

    def verify(self, sample: Sample, text: str) -> bool:
        """Whether the answer is right."""
        return self.judge(sample, text).right

    def judge_all(
        self, samples: Sequence[Sample], texts: Sequence[str], on_progress: OnVerified | None = None
    ) -> list[Verdict]:
        """Mark one answer per sample; ``on_progress(finished, total)`` is called where that takes long."""
        return [self.judge(sample, text) for sample, text in zip(samples, texts, strict=True)]


class ExactVerifier(Verifier):
    """The one right text (:func:`engine.evaluation.scoring.matches`)."""

    def judge(self, sample: Sample, text: str) -> Verdict:
        return Verdict(True) if matches(sample.answer, text) else Verdict(False, "wrong")


class NumberVerifier(Verifier):
    """The number that the answer arrives at, however it is written."""

    def judge(self, sample: Sample, text: str) -> Verdict:
        found = final_number(text)
        if found is None:
            return Verdict(False, "no number")
        return Verdict(True) if found == final_number(sample.answer) else Verdict(False, "wrong")


class CodeVerifier(Verifier):
    """Runs the answer's code and its tests in the sandbox, ``workers`` programs at a time (0: one for each core)."""

    def __init__(self, limits: Limits | None = None, workers: int = 0) -> None:
        self._limits = limits or Limits()
        self._workers = workers or os.cpu_count() or 1

    def judge(self, sample: Sample, text: str) -> Verdict:
        assert sample.tests is not None, f"{sample.kind} {sample.name} has no tests to run"
        solution = program(sample.tests, text)
        if not solution:
            return Verdict(False, "no code")
        outcome = run_program(solution, sample.tests.check, self._limits)
        if outcome.passed:
            return Verdict(True)
        return Verdict(False, f"{outcome.status}: {outcome.detail}")

    def judge_all(
        self, samples: Sequence[Sample], texts: Sequence[str], on_progress: OnVerified | None = None
    ) -> list[Verdict]:
        verdicts: list[Verdict] = []
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="sandbox")
        try:
            for verdict in pool.map(lambda pair: self.judge(*pair), zip(samples, texts, strict=True)):
                verdicts.append(verdict)
                if on_progress is not None:
                    on_progress(len(verdicts), len(samples))
        finally:
            pool.shutdown(cancel_futures=True)
        return verdicts


EXACT = ExactVerifier()


def make_verifier(name: VerifierName, limits: Limits | None = None, workers: int = 0) -> Verifier:
    """The verifier of a name; the limits and workers are those of code."""
    if name == "code":
        return CodeVerifier(limits, workers)
    return NumberVerifier() if name == "number" else EXACT
