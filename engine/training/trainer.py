"""Run a job: steps, reports, validations, checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.training.batches import Batch, Batcher
from engine.training.checkpoint import save_checkpoint
from engine.training.job import Job
from engine.training.machine import bfloat16_is_faster, has_compiler
from engine.training.network import batch_loss, compiled_hidden_states, hidden_states
from engine.training.optim import Optimiser
from engine.training.router_loss import RouterLoss
from engine.training.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a job is run. ``seed`` draws noise and objectives.

    ``compile`` fuses the network with torch.compile, which needs a C++ compiler and two minutes, and doubles the speed
    on a CPU; ``bfloat16`` computes products in bfloat16 over float32 weights. None: where it pays.
    """

    output: Path
    seed: int = 0
    compile: bool | None = None
    bfloat16: bool | None = None
    report_every_s: float = 30.0
    validate_every_s: float = 600.0


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """State of a running training. ``loss`` and ``tokens_per_s`` are means over the last interval of reports;
    ``scores`` are the job's own numbers, present when a validation just ended."""

    step: int
    fraction: float
    loss: float
    samples: int
    tokens_per_s: float
    elapsed_s: float
    scores: Mapping[str, float] | None = None


class Interval(NamedTuple):
    """Means between two reports."""

    loss: float
    tokens_per_s: float


def train(job: Job, settings: TrainSettings, on_progress: Callable[[TrainProgress], None]) -> Path:
    """Train, save checkpoints and ``metrics.jsonl`` on the way, and return the folder of the last checkpoint."""
    Trainer(job, settings, on_progress).run()
    return settings.output


class Trainer:
    """Owns the optimiser and the schedule of one training run."""

    def __init__(self, job: Job, settings: TrainSettings, on_progress: Callable[[TrainProgress], None]) -> None:
        self._job = job
        self._settings = settings
        self._on_progress = on_progress
        self._optimiser = Optimiser(job.model, job.optimisation)
        self._bfloat16 = bfloat16_is_faster() if settings.bfloat16 is None else settings.bfloat16
        compiled = has_compiler() if settings.compile is None else settings.compile
        self._compute_hidden = compiled_hidden_states() if compiled else hidden_states
        self._router_loss = RouterLoss(job.model, job.router_balance) if job.router_balance else None
        self._schedule = Schedule(job.curriculum, job.budget)
        self._interval = Interval(float("nan"), 0.0)
        self._samples = 0

    def run(self) -> None:
        """Steps until the schedule is finished, with reports and validations in between."""
        report_due = _Timer(self._settings.report_every_s)
        validation_due = _Timer(self._settings.validate_every_s)
        losses: list[float] = []
        tokens = 0
        for batch in self._batches():
            losses.append(self._step(batch))
            tokens += batch.tokens_RN.numel()
            finished = self._schedule.finished
            if finished or report_due:
                self._interval = Interval(sum(losses) / len(losses), tokens / report_due.restart())
                losses, tokens = [], 0
                self._report()
            if finished or validation_due:
                self._checkpoint()
                validation_due.restart()
                report_due.restart()
            if finished:
                return

    def _step(self, batch: Batch) -> float:
        self._schedule.advance()
        loss = batch_loss(
            self._job.model,
            batch,
            bfloat16=self._bfloat16,
            compute_hidden=self._compute_hidden,
            router_loss=self._router_loss,
        )
        loss.backward()
        self._optimiser.step(self._schedule.rate)
        return loss.item()

    def _batches(self) -> Iterator[Batch]:
        """Rows that a sample's number and the seed alone decide, in batches."""
        job = self._job
        batcher = Batcher(job.tokens_per_step, job.end, job.row_lengths, packed=job.packed)
        while True:
            mixture = self._schedule.stage.mixture
            weights = np.array([share.weight for share in mixture])
            rng = np.random.default_rng((self._settings.seed, self._samples))
            objective = mixture[rng.choice(len(mixture), p=weights / weights.sum())].objective
            self._samples += 1
            yield from batcher.add(objective.row(job.samples.take_for(objective), job.mask, job.end, rng))

    def _checkpoint(self) -> None:
        scores = None if self._job.validate is None else self._job.validate()
        if scores is not None:
            self._report(scores)
        save_checkpoint(self._settings.output, self._job.model, self._job.files, self._record(scores))

    def _report(self, scores: Mapping[str, float] | None = None) -> None:
        progress = TrainProgress(
            step=self._schedule.step,
            fraction=self._schedule.fraction,
            loss=self._interval.loss,
            samples=self._samples,
            tokens_per_s=self._interval.tokens_per_s,
            elapsed_s=self._schedule.elapsed_s,
            scores=scores,
        )
        metrics = self._settings.output.with_name(self._settings.output.name + ".metrics.jsonl")
        metrics.parent.mkdir(parents=True, exist_ok=True)
        with metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(progress)) + "\n")
        self._on_progress(progress)

    def _record(self, scores: Mapping[str, float] | None) -> dict[str, object]:
        return {
            **self._job.record,
            "steps": self._schedule.step,
            "samples": self._samples,
            "minutes": round(self._schedule.elapsed_s / 60, 1),
            "scores": dict(scores or {}),
        }


class _Timer:
    """True once its interval has passed since the last restart."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._since = time.monotonic()

    def __bool__(self) -> bool:
        return time.monotonic() - self._since > self._interval_s

    def restart(self) -> float:
        """Start anew; returns the seconds since the last start."""
        now = time.monotonic()
        elapsed, self._since = now - self._since, now
        return elapsed
