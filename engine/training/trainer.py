"""Train one of the embedded checkpoints from nothing, or go on from one."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from engine.attention.dense import DenseAttention
from engine.errors import ConfigError
from engine.evaluation.tasks.table import DATA_VERSION
from engine.models.spec import ModelSpec
from engine.training.batches import Batch, Batcher
from engine.training.checkpoint import load_weights, save_checkpoint
from engine.training.data import SpecialIds, encoded_samples
from engine.training.families import FAMILIES, Family
from engine.training.initialise import initialise
from engine.training.losses import weighted_cross_entropy
from engine.training.optim import Optimiser
from engine.training.presets import RECIPES, Recipe, Stage
from engine.training.tokenizer import train_tokenizer
from engine.training.validation import ReferenceDecoder, Score, validate

logger = logging.getLogger(__name__)

FINAL_RATE = 0.02
ROPE_THETA = 10000.0
NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What to train and how long.

    ``time_budget_minutes`` (wall clock) replaces the recipe's number of steps: the schedule then follows the elapsed
    fraction of it; with ``steps`` given as well, whichever is further. ``initial`` is a checkpoint folder to go on from.
    ``compile`` fuses the network's layers with torch.compile, which needs a C++ compiler and a minute or two, and doubles
    the speed on a CPU; ``bfloat16`` computes products in bfloat16 over float32 weights. None: where it pays.
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


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """State of a running training; ``accuracy`` per kind is present when a validation just ended."""

    step: int
    fraction: float
    loss: float
    samples: int
    tokens_per_s: float
    elapsed_s: float
    accuracy: dict[str, float] | None = None


def train(config: TrainConfig, on_progress: Callable[[TrainProgress], None]) -> Path:
    """Train, save checkpoints on the way, and return the folder of the last one."""
    if config.preset not in RECIPES:
        raise ConfigError(f"There is no preset {config.preset!r}; choose from {', '.join(RECIPES)}.", "preset")
    Trainer(config, RECIPES[config.preset], on_progress).run()
    return config.output


class Trainer:
    """Owns the network, its optimiser and the clock of one training run."""

    def __init__(self, config: TrainConfig, recipe: Recipe, on_progress: Callable[[TrainProgress], None]) -> None:
        self._config = config
        self._recipe = recipe
        self._on_progress = on_progress
        self._family: Family = FAMILIES[recipe.family]
        self._tokenizer = self._make_tokenizer()
        self._ids = SpecialIds.of(self._tokenizer)
        self._model = self._family.build(self._spec())
        self._fill_weights()
        self._optimiser = Optimiser(
            self._model, self._family.embedding, self._family.head, recipe.muon_rate, recipe.adam_rate
        )
        self._hidden = torch.compile(self._compute_hidden, dynamic=True) if config.compile else self._compute_hidden
        self._samples = 0
        self._position = 0.0
        self._started = time.monotonic()

    def run(self) -> None:
        """Steps until the fraction reaches 1, with reports and validations in between."""
        steps = self._config.steps or self._recipe.steps
        self._started = last_report = last_validation = time.monotonic()
        losses: list[float] = []
        tokens = 0
        for step, batch in enumerate(self._batches(), start=1):
            fraction = self._position = self._fraction(step, steps)
            losses.append(self._train_step(batch, self._rate(step, fraction)))
            tokens += batch.tokens_RN.numel()
            now = time.monotonic()
            finished = fraction >= 1.0
            if finished or now - last_report > self._config.report_every_s:
                self._report(step, fraction, losses, tokens / (now - last_report), None)
                losses, tokens, last_report = [], 0, now
            if finished or now - last_validation > self._config.validate_every_s:
                self._checkpoint(step, fraction)
                last_validation = last_report = time.monotonic()
            if finished:
                return

    def _fraction(self, step: int, steps: int) -> float:
        by_step = step / steps
        if self._config.time_budget_minutes is None:
            return by_step
        by_time = (time.monotonic() - self._started) / (60 * self._config.time_budget_minutes)
        return max(by_time, by_step) if self._config.steps is not None else by_time

    def _stage(self, fraction: float) -> Stage:
        return next((stage for stage in self._recipe.stages if fraction < stage.until), self._recipe.stages[-1])

    def _rate(self, step: int, fraction: float) -> float:
        """Share of the peak learning rates: warm-up, plateau, linear decay; times the stage's own factor."""
        warm = min(1.0, step / self._recipe.warmup_steps)
        decay = min(1.0, (1.0 - fraction) / (1.0 - self._recipe.decay_from))
        return self._stage(fraction).rate * warm * max(FINAL_RATE, decay)

    def _batches(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self._config.seed)
        batcher = Batcher(self._recipe.tokens_per_step, self._ids.end)
        for sample in encoded_samples(self._tokenizer, self._config.seed):
            mixture = self._stage(self._position).mixture
            weights = np.array([share.weight for share in mixture])
            objective = mixture[rng.choice(len(mixture), p=weights / weights.sum())].objective
            self._samples += 1
            yield from batcher.add(objective.row(sample, self._ids.mask, self._ids.end, rng))

    def _compute_hidden(self, tokens_RN: Tensor, positions_RN: Tensor, mask_R1NN: Tensor) -> Tensor:
        batch, length = tokens_RN.shape
        attention = DenseAttention(batch, length, mask_R1NN)
        hidden_TD: Tensor = self._model(self._model.embed(tokens_RN.flatten()), positions_RN.flatten(), attention)
        return hidden_TD

    def _train_step(self, batch: Batch, rate: float) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._config.bfloat16):
            hidden_TD = self._hidden(batch.tokens_RN, batch.positions_RN, batch.mask_R1NN)
            logits_MV = self._model.compute_logits(hidden_TD[batch.indices_M])
        loss = weighted_cross_entropy(logits_MV, batch.targets_M, batch.weights_M)
        loss.backward()
        self._optimiser.step(rate)
        return loss.item()

    def _checkpoint(self, step: int, fraction: float) -> None:
        decoder = ReferenceDecoder(self._model, self._ids, self._recipe.block_length, None)
        scores = validate(decoder, self._tokenizer, self._config.validation_prompts)
        self._report(step, fraction, [], 0.0, {kind: score.accuracy for kind, score in scores.items()})
        record = self._record(step, scores)
        save_checkpoint(self._config.output, self._model, self._family, self._tokenizer, record)

    def _report(
        self, step: int, fraction: float, losses: list[float], tokens_per_s: float, accuracy: dict[str, float] | None
    ) -> None:
        loss = sum(losses) / len(losses) if losses else float("nan")
        elapsed = time.monotonic() - self._started
        self._on_progress(TrainProgress(step, fraction, loss, self._samples, tokens_per_s, elapsed, accuracy))

    def _record(self, step: int, scores: dict[str, Score]) -> dict[str, object]:
        recipe = json.loads(json.dumps(asdict(self._recipe), default=repr))
        return {
            "preset": self._config.preset,
            "seed": self._config.seed,
            "data_version": DATA_VERSION,
            "steps": step,
            "samples": self._samples,
            "minutes": round((time.monotonic() - self._started) / 60, 1),
            "recipe": recipe,
            "held_out_accuracy": {
                kind: {
                    "right": score.right,
                    "total": score.total,
                    "tokens_per_forward": round(score.tokens_per_forward, 2),
                }
                for kind, score in scores.items()
            },
        }

    def _make_tokenizer(self) -> Tokenizer:
        if self._config.initial is not None:
            return Tokenizer.from_file(str(self._config.initial / "tokenizer.json"))
        return train_tokenizer(self._recipe.vocab_size, seed=0)

    def _fill_weights(self) -> None:
        if self._config.initial is not None:
            load_weights(self._model, self._config.initial)
        else:
            generator = torch.Generator().manual_seed(self._config.seed)
            initialise(self._model, (self._family.embedding, self._family.head), generator)

    def _spec(self) -> ModelSpec:
        recipe = self._recipe
        return ModelSpec(
            architecture=self._family.architecture,
            attention=self._family.attention,
            vocab_size=recipe.vocab_size,
            hidden_size=recipe.hidden_size,
            intermediate_size=recipe.intermediate_size,
            num_layers=recipe.num_layers,
            num_heads=recipe.num_heads,
            num_kv_heads=recipe.num_heads,
            head_dim=recipe.hidden_size // recipe.num_heads,
            max_position_embeddings=recipe.max_length,
            rope_theta=ROPE_THETA,
            rms_norm_eps=NORM_EPS,
            tie_word_embeddings=False,
            attention_bias=False,
            mask_token_id=self._ids.mask,
            stop_token_ids=frozenset({self._ids.end}),
            block_length=recipe.block_length,
        )
