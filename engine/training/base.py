"""Jobs of the base objectives: a named recipe's network, from nothing or from another checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from engine.errors import ConfigError
from engine.evaluation.tasks.table import DATA_VERSION
from engine.models.spec import DiffusionLM
from engine.training.batches import ROW_LENGTHS
from engine.training.checkpoint import files_of, start_from
from engine.training.data import EncodedSample, SpecialIds, encoded_samples
from engine.training.families import FAMILIES, ROUTER_BALANCE
from engine.training.initialise import initialise
from engine.training.job import Budget, Curriculum, Job, JsonValue, Optimisation, SampleStream
from engine.training.network import recipe_spec
from engine.training.presets import RECIPES, Recipe, describe
from engine.training.tokenizer import train_tokenizer
from engine.training.validation import Decoder, NextTokenDecoder, ReferenceDecoder, exact_matches

TOKENIZER_SEED = 0
EMBEDDED = Path(__file__).parents[1] / "checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseConfig:
    """Which recipe, and what differs from it.

    ``time_budget_minutes`` (wall clock) replaces the recipe's number of steps: the schedule then follows the elapsed
    fraction of it; with ``steps`` given as well, whichever is further. ``initial`` is a checkpoint folder to start
    from, of the same family or, for LLaDA and LLaDA-MoE, of an SDAR or Qwen3 network; None: what the recipe says.
    """

    preset: str
    seed: int = 0
    steps: int | None = None
    time_budget_minutes: float | None = None
    initial: Path | None = None
    validation_prompts: int = 24

    def budget(self, recipe: Recipe) -> Budget:
        """The recipe's own number of steps holds when nothing is said."""
        return Budget.or_default(self.steps, self.time_budget_minutes, recipe.steps)


class TaskSamples(SampleStream):
    """The built-in tasks, encoded."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._samples: Iterator[EncodedSample] = encoded_samples(tokenizer, seed)
        self._taken = 0

    def take(self) -> EncodedSample:
        self._taken += 1
        return next(self._samples)

    def state(self) -> Mapping[str, JsonValue]:
        return {"taken": self._taken}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """The tasks are drawn one after the other, so those before are drawn once more (some thousand a second)."""
        while self._taken != state["taken"]:
            self.take()


def base_job(config: BaseConfig, recipe: Recipe | None = None) -> Job:
    """The job of a named recipe, or of ``recipe``. ConfigError for an unknown name or an unfit checkpoint."""
    if recipe is None:
        if config.preset not in RECIPES:
            raise ConfigError(f"There is no preset {config.preset!r}; choose from {', '.join(RECIPES)}.", "preset")
        recipe = RECIPES[config.preset]
    initial = config.initial or (EMBEDDED / recipe.initial if recipe.initial else None)
    tokenizer = _tokenizer(recipe, initial)
    ids = SpecialIds.of(tokenizer)
    family = FAMILIES[recipe.family]
    model = family.build(recipe_spec(recipe, family, ids))
    if initial is not None:
        start_from(initial, model, tokenizer)
    else:
        initialise(model, family, torch.Generator().manual_seed(config.seed))
    decoder = _decoder(recipe, model, ids)
    return Job(
        name=config.preset,
        model=model,
        files=files_of(model, family, tokenizer),
        samples=TaskSamples(tokenizer, config.seed),
        mask=ids.mask,
        end=ids.end,
        curriculum=Curriculum(stages=recipe.stages, warmup_steps=recipe.warmup_steps, decay_from=recipe.decay_from),
        optimisation=Optimisation(
            kind="muon",
            rate=recipe.adam_rate,
            matrix_rate=recipe.muon_rate,
            embedding_boost=2.5,
            gradient_clip=None,
        ),
        tokens_per_step=recipe.tokens_per_step,
        row_lengths=ROW_LENGTHS,
        budget=config.budget(recipe),
        router_balance=ROUTER_BALANCE if recipe.experts else 0.0,
        validate=lambda: exact_matches(decoder, tokenizer, config.validation_prompts),
        record={
            "preset": config.preset,
            "seed": config.seed,
            "initial": initial.name if initial else None,
            "data_version": DATA_VERSION,
            "recipe": describe(recipe),
        },
    )


def _tokenizer(recipe: Recipe, initial: Path | None) -> Tokenizer:
    if initial is not None:
        return Tokenizer.from_file(str(initial / "tokenizer.json"))
    return train_tokenizer(recipe.vocab_size, TOKENIZER_SEED, recipe.tokenizer_samples)


def _decoder(recipe: Recipe, model: DiffusionLM, ids: SpecialIds) -> Decoder:
    if recipe.family == "qwen3":
        return NextTokenDecoder(model, ids)
    return ReferenceDecoder(model, ids, recipe.block_length, threshold=None)
