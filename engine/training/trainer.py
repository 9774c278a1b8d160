"""Run a job: steps, reports, validations, checkpoints; from nothing or from where another run was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.host_memory import keep_freed_memory
from engine.training.backend import Backend, PlainBackend
from engine.training.batches import Batch
from engine.training.checkpoint import save_checkpoint
from engine.training.feed import Feed
from engine.training.interruption import Interruption
from engine.training.job import Job
from engine.training.machine import bfloat16_is_faster, has_compiler
from engine.training.metrics import MetricsLog, RunFiles, TrainProgress
from engine.training.network import batch_loss, compiled_hidden_states, hidden_states
from engine.training.reporting import Reporter, Timer
from engine.training.router_loss import RouterLoss
from engine.training.run_state import RunState, identity
from engine.training.schedule import Schedule
from engine.training.world import World
from engine.training.zero import ZeroSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a job is run. ``seed`` draws noise and objectives.

    ``compile`` fuses the network with torch.compile, which needs a C++ compiler and two minutes, and doubles the speed
    on a CPU; ``bfloat16`` computes products in bfloat16 over float32 weights. None: where it pays. ``accumulate``
    micro-batches make a step. An output that exists is refused unless the run is to ``resume`` its training or to
    ``overwrite`` it. ``tensorboard`` is a folder for event files. ``zero`` runs the training with DeepSpeed, which
    several processes always do (None: at its defaults).
    """

    output: Path
    seed: int = 0
    compile: bool | None = None
    bfloat16: bool | None = None
    accumulate: int = 1
    device: str = "cpu"
    zero: ZeroSettings | None = None
    resume: bool = False
    overwrite: bool = False
    tensorboard: Path | None = None
    report_every_s: float = 30.0
    validate_every_s: float = 600.0


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What came of a run. ``signal`` is the number of the signal that stopped it before its end, 0: it is finished.
    ``last`` is the last report, where there was one."""

    output: Path
    step: int
    signal: int
    last: TrainProgress | None


class _Turn(NamedTuple):
    """What the processes do next, as they agreed. Time is the first process's."""

    signal: int
    report: bool
    save: bool
    elapsed_s: float


def train(job: Job, settings: TrainSettings, on_progress: Callable[[TrainProgress], None]) -> TrainResult:
    """Train; checkpoints, state and ``metrics.jsonl`` are saved on the way (by the first process, which alone calls
    ``on_progress``). ConfigError for an output in the way, another training's state or a full disk."""
    world = World.of_environment()
    device = own_device(settings.device, world)
    if device.type == "cpu":
        keep_freed_memory()
    with world.joined(device, alone_too=settings.zero is not None):
        return Trainer(job, settings, on_progress, world, device).run()


def own_device(device: str, world: World) -> torch.device:
    """The device of this process: of several on a machine, each takes its own GPU."""
    own = torch.device(device)
    return torch.device("cuda", world.local_rank) if own.type == "cuda" and world.size > 1 else own


class Trainer:
    """One training run: takes batches from the feed, makes steps of them with the backend, saves and reports."""

    def __init__(
        self,
        job: Job,
        settings: TrainSettings,
        on_progress: Callable[[TrainProgress], None],
        world: World,
        device: torch.device,
    ) -> None:
        _check_output(settings)
        self._job = job
        self._settings = settings
        self._world = world
        self._device = device
        self._zero = settings.zero or (ZeroSettings() if world.size > 1 else None)
        self._schedule = Schedule(job.curriculum, job.budget)
        self._feed = Feed(job, settings.seed, self._world, lambda: self._schedule.stage)
        self._backend = self._make_backend()
        self._files = RunFiles(settings.output)
        self._log = MetricsLog(self._files, settings.tensorboard) if self._world.is_first else None
        self._reporter = Reporter(self._world, self._schedule, self._feed, job.samples.bad_rows, self._log, on_progress)
        facts = identity(job, settings.seed, settings.accumulate, world.size, self._zero)
        self._state = RunState(self._files.state, facts, self._backend, self._feed, self._schedule, self._world)

    def run(self) -> TrainResult:
        """Steps until the schedule is finished or a signal comes, with reports and validations in between."""
        interruption = Interruption()
        with interruption.listening():
            self._begin()
            signal = self._loop(interruption)
        if self._log is not None:
            self._log.close()
        return TrainResult(self._settings.output, self._schedule.step, signal, self._reporter.last)

    def _begin(self) -> None:
        if self._settings.resume:
            self._state.restore()
            if self._log is not None:
                bad_rows = self._job.samples.bad_rows
                self._log.go_on(self._schedule.step, 0 if bad_rows is None else bad_rows.count)
        elif self._log is not None:
            shutil.rmtree(self._files.state, ignore_errors=True)
            self._log.begin()

    def _loop(self, interruption: Interruption) -> int:
        self._first_step = self._schedule.step
        report_due, save_due = Timer(self._settings.report_every_s), Timer(self._settings.validate_every_s)
        batches = self._feed.batches()
        while not self._schedule.finished:
            turn = self._agree(interruption, report_due, save_due)
            if turn.signal:
                self._stop()
                return turn.signal
            if turn.report:
                self._reporter.report()
                report_due.restart()
            if turn.save:
                self._checkpoint(self._validate())
                self._state.save()
                save_due.restart()
                self._reporter.skip_time()
            self._step(list(islice(batches, self._settings.accumulate)), turn.elapsed_s)
        self._reporter.report()
        self._checkpoint(self._validate())
        if self._world.is_first:
            shutil.rmtree(self._files.state, ignore_errors=True)
        return 0

    def _agree(self, interruption: Interruption, report_due: Timer, save_due: Timer) -> _Turn:
        own = _Turn(interruption.signal, report=False, save=False, elapsed_s=0.0)
        if self._world.is_first:
            moved = self._schedule.step > self._first_step
            own = own._replace(
                report=moved and bool(report_due), save=moved and bool(save_due), elapsed_s=self._schedule.elapsed_s
            )
        signal, report, save, elapsed_s = self._world.max(own)
        return _Turn(int(signal), bool(report), bool(save), elapsed_s)

    def _step(self, batches: list[Batch], elapsed_s: float) -> None:
        """One update. The loss is the weighted sum over the tokens of all micro-batches of all processes, divided by
        the sum of all their normalisers, however the tokens are divided into batches."""
        self._schedule.advance(elapsed_s)
        (total,) = self._world.sum([sum(batch.normaliser for batch in batches)])
        share = total / (len(batches) * self._world.size)
        losses = [self._backend.accumulate(replace(batch, normaliser=share).to(self._device)) for batch in batches]
        gradient_norm = self._backend.step(self._schedule.rate)
        tokens = sum(batch.tokens_RN.numel() for batch in batches)
        self._reporter.count(sum(losses) / len(losses), gradient_norm, tokens)

    def _stop(self) -> None:
        self._reporter.report()
        if self._schedule.step:
            self._checkpoint(None)
        self._state.save()

    def _validate(self) -> Mapping[str, float] | None:
        if self._job.validate is None:
            return None
        scores = self._backend.run(self._job.validate)
        self._reporter.report(scores)
        return scores

    def _checkpoint(self, scores: Mapping[str, float] | None) -> None:
        record = {
            **self._job.record,
            "steps": self._schedule.step,
            "samples": self._feed.num_samples,
            "minutes": round(self._schedule.elapsed_s / 60, 1),
            "scores": dict(scores or {}),
        }
        with self._backend.whole_weights():
            if self._world.is_first:
                save_checkpoint(self._settings.output, self._job.model, self._job.files, record)

    def _make_backend(self) -> Backend:
        settings, model = self._settings, self._job.model.to(self._device)
        on_cuda = self._device.type == "cuda"
        bfloat16 = on_cuda or bfloat16_is_faster() if settings.bfloat16 is None else settings.bfloat16
        bfloat16 &= self._zero is None or not self._zero.bfloat16  # the weights are in it already
        compiled = on_cuda or has_compiler() if settings.compile is None else settings.compile
        compute_hidden = compiled_hidden_states() if compiled else hidden_states

        router_loss = RouterLoss(model, self._job.router_balance) if self._job.router_balance else None

        def loss(batch: Batch) -> Tensor:
            return batch_loss(model, batch, bfloat16=bfloat16, compute_hidden=compute_hidden, router_loss=router_loss)

        if self._zero is None:
            return PlainBackend(model, self._job.optimisation, loss, settings.accumulate)
        from engine.training.deepspeed_backend import DeepSpeedBackend

        return DeepSpeedBackend(model, self._job.optimisation, loss, settings.accumulate, self._zero)


def _check_output(settings: TrainSettings) -> None:
    """ConfigError when there is something in the way."""
    files = RunFiles(settings.output)
    if settings.resume or settings.overwrite:
        return
    for folder in (files.output, files.state):
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(
                f"{folder} exists: give --resume to go on with its training, --overwrite to train anew, or another "
                "--output",
                "output",
            )
