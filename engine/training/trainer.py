"""Train one of the embedded checkpoints from nothing, or go on from one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from engine.errors import ConfigError
from engine.evaluation.tasks.table import DATA_VERSION
from engine.training.batches import Batch, Batcher
from engine.training.checkpoint import save_checkpoint, start_from
from engine.training.data import SpecialIds, encoded_samples
from engine.training.families import FAMILIES, Family
from engine.training.initialise import initialise
from engine.training.machine import bfloat16_is_faster, has_compiler
from engine.training.network import batch_loss, compiled_hidden_states, hidden_states, recipe_spec
from engine.training.optim import Optimiser
from engine.training.presets import RECIPES, Recipe, describe
from engine.training.schedule import Budget, Schedule
from engine.training.tokenizer import train_tokenizer
from engine.training.validation import Decoder, NextTokenDecoder, ReferenceDecoder, Score, validate

TOKENIZER_SEED = 0
EMBEDDED = Path(__file__).parents[1] / "checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What to train and how long.

    ``time_budget_minutes`` (wall clock) replaces the recipe's number of steps: the schedule then follows the elapsed
    fraction of it; with ``steps`` given as well, whichever is further. ``initial`` is a checkpoint folder to start
    from, of the same family or, for LLaDA, of an SDAR network of the same shape; None: what the recipe says.
    ``compile`` fuses the network with torch.compile, which needs a C++ compiler and two minutes, and doubles the speed
    on a CPU; ``bfloat16`` computes products in bfloat16 over float32 weights. None: where it pays.
    """

    preset: str
    output: Path
    seed: int = 0
    steps: int | None = None
    time_budget_minutes: float | None = None
    initial: Path | None = None
    compile: bool | None = None
    bfloat16: bool | None = None
    report_every_s: float = 30.0
    validate_every_s: float = 600.0
    validation_prompts: int = 24

    def budget(self, recipe: Recipe) -> Budget:
        """The recipe's own number of steps holds when nothing is said."""
        if self.steps is None and self.time_budget_minutes is None:
            return Budget(recipe.steps, None)
        return Budget(self.steps, self.time_budget_minutes)


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """State of a running training. ``loss`` and ``tokens_per_s`` are means over the last interval of reports;
    ``accuracy`` is the share of right answers per kind, present when a validation just ended."""

    step: int
    fraction: float
    loss: float
    samples: int
    tokens_per_s: float
    elapsed_s: float
    accuracy: dict[str, float] | None = None


class Interval(NamedTuple):
    """Means between two reports."""

    loss: float
    tokens_per_s: float


def train(config: TrainConfig, on_progress: Callable[[TrainProgress], None]) -> Path:
    """Train, save checkpoints and ``metrics.jsonl`` on the way, and return the folder of the last checkpoint."""
    if config.preset not in RECIPES:
        raise ConfigError(f"There is no preset {config.preset!r}; choose from {', '.join(RECIPES)}.", "preset")
    Trainer(config, RECIPES[config.preset], on_progress).run()
    return config.output


class Trainer:
    """Owns the network, its optimiser and the schedule of one training run."""

    def __init__(self, config: TrainConfig, recipe: Recipe, on_progress: Callable[[TrainProgress], None]) -> None:
        self._config = config
        self._recipe = recipe
        self._on_progress = on_progress
        self._family: Family = FAMILIES[recipe.family]
        self._initial = config.initial or (EMBEDDED / recipe.initial if recipe.initial else None)
        self._tokenizer = self._make_tokenizer()
        self._ids = SpecialIds.of(self._tokenizer)
        self._model = self._family.build(recipe_spec(recipe, self._family, self._ids))
        self._fill_weights()
        self._optimiser = Optimiser(self._model, self._family, recipe.muon_rate, recipe.adam_rate)
        self._bfloat16 = bfloat16_is_faster() if config.bfloat16 is None else config.bfloat16
        compiled = has_compiler() if config.compile is None else config.compile
        self._compute_hidden = compiled_hidden_states() if compiled else hidden_states
        self._schedule = Schedule(recipe, config.budget(recipe))
        self._interval = Interval(float("nan"), 0.0)
        self._samples = 0

    def run(self) -> None:
        """Steps until the schedule is finished, with reports and validations in between."""
        report_due = _Timer(self._config.report_every_s)
        validation_due = _Timer(self._config.validate_every_s)
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
        loss = batch_loss(self._model, batch, bfloat16=self._bfloat16, compute_hidden=self._compute_hidden)
        loss.backward()
        self._optimiser.step(self._schedule.rate)
        return loss.item()

    def _batches(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self._config.seed)
        batcher = Batcher(self._recipe.tokens_per_step, self._ids.end)
        for sample in encoded_samples(self._tokenizer, self._config.seed):
            mixture = self._schedule.stage.mixture
            weights = np.array([share.weight for share in mixture])
            objective = mixture[rng.choice(len(mixture), p=weights / weights.sum())].objective
            self._samples += 1
            yield from batcher.add(objective.row(sample, self._ids.mask, self._ids.end, rng))

    def _checkpoint(self) -> None:
        scores = validate(self._decoder(), self._tokenizer, self._config.validation_prompts)
        self._report(accuracy={kind: score.accuracy for kind, score in scores.items()})
        save_checkpoint(self._config.output, self._model, self._family, self._tokenizer, self._record(scores))

    def _decoder(self) -> Decoder:
        if self._recipe.family == "qwen3":
            return NextTokenDecoder(self._model, self._ids)
        return ReferenceDecoder(self._model, self._ids, self._recipe.block_length, threshold=None)

    def _report(self, accuracy: dict[str, float] | None = None) -> None:
        progress = TrainProgress(
            step=self._schedule.step,
            fraction=self._schedule.fraction,
            loss=self._interval.loss,
            samples=self._samples,
            tokens_per_s=self._interval.tokens_per_s,
            elapsed_s=self._schedule.elapsed_s,
            accuracy=accuracy,
        )
        metrics = self._config.output.with_name(self._config.output.name + ".metrics.jsonl")
        metrics.parent.mkdir(parents=True, exist_ok=True)
        with metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(progress)) + "\n")
        self._on_progress(progress)

    def _record(self, scores: dict[str, Score]) -> dict[str, object]:
        return {
            "preset": self._config.preset,
            "seed": self._config.seed,
            "initial": self._initial.name if self._initial else None,
            "data_version": DATA_VERSION,
            "steps": self._schedule.step,
            "samples": self._samples,
            "minutes": round(self._schedule.elapsed_s / 60, 1),
            "recipe": describe(self._recipe),
            "held_out_accuracy": {kind: f"{score.right}/{score.total}" for kind, score in scores.items()},
        }

    def _make_tokenizer(self) -> Tokenizer:
        if self._initial is not None:
            return Tokenizer.from_file(str(self._initial / "tokenizer.json"))
        return train_tokenizer(self._recipe.vocab_size, TOKENIZER_SEED, self._recipe.tokenizer_samples)

    def _fill_weights(self) -> None:
        if self._initial is not None:
            start_from(self._initial, self._model, self._tokenizer)
        else:
            initialise(self._model, self._family, torch.Generator().manual_seed(self._config.seed))


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
