"""Jobs that turn an autoregressive checkpoint into a block-diffusion one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from tokenizers import Tokenizer

from engine.errors import ConfigError
from engine.evaluation.tasks.table import DATA_VERSION
from engine.training.base import TaskSamples
from engine.training.batches import ROW_LENGTHS
from engine.training.block_diffusion import BlockDiffusion
from engine.training.conversion import Converted, convert
from engine.training.data import SpecialIds
from engine.training.job import Budget, Curriculum, Job, JsonValue, Optimisation, Share, Stage
from engine.training.noise import Blocks, Objective
from engine.training.tokenizer import SPECIAL_TOKENS
from engine.training.validation import ReferenceDecoder, validate

Phase = Literal["cpt", "sft"]
ObjectiveName = Literal["sdar", "blocks"]

FIRST_BLOCK = 4
STEPS = 1000
TINY_TOKENS_PER_STEP = 4608
TARGET_SHARE = 0.5
"""Of the training, spent on the last block length of a curriculum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptConfig:
    """What to adapt, to which block length, and how.

    ``curriculum`` are the block lengths on the way, the target last (empty: doubling from 4). ``ar_share`` of the rows
    are autoregressive: blocks of 1. Rates that are None: the defaults of the data.
    """

    source: Path
    block_length: int = FIRST_BLOCK
    objective: ObjectiveName = "blocks"
    curriculum: tuple[int, ...] = ()
    ar_share: float = 0.0
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    matrix_rate: float = 0.02
    rate: float = 0.004
    validation_prompts: int = 24

    def __post_init__(self) -> None:
        lengths = self.lengths
        if min(lengths) < 1 or list(lengths) != sorted(set(lengths)) or lengths[-1] != self.block_length:
            message = (
                f"curriculum: block lengths must grow up to {self.block_length}, got {', '.join(map(str, lengths))}"
            )
            raise ConfigError(message, "curriculum")
        if self.objective not in get_args(ObjectiveName):
            choices = ", ".join(get_args(ObjectiveName))
            raise ConfigError(f"objective must be one of {choices}, got {self.objective!r}", "objective")
        if not 0 <= self.ar_share < 1:
            raise ConfigError(f"ar_share must be in 0..1 and below 1, got {self.ar_share}", "ar_share")

    @property
    def lengths(self) -> tuple[int, ...]:
        """The block lengths in turn."""
        return self.curriculum or doubling(self.block_length)

    def budget(self) -> Budget:
        """A thousand steps where nothing is said."""
        if self.steps is None and self.minutes is None:
            return Budget(STEPS, None)
        return Budget(self.steps, self.minutes)


def doubling(block_length: int) -> tuple[int, ...]:
    """4, 8, 16 ... and the target last."""
    smaller = takewhile(lambda length: length < block_length, (FIRST_BLOCK << n for n in range(block_length)))
    return (*smaller, block_length)


def stages(config: AdaptConfig) -> tuple[Stage, ...]:
    """The last block length has half of the training, those before share the other half."""
    lengths = config.lengths
    before = len(lengths) - 1
    ends = [(1 - TARGET_SHARE) * (index + 1) / before for index in range(before)] + [1.0]
    return tuple(Stage(end, _mixture(config, length)) for end, length in zip(ends, lengths, strict=True))


def _mixture(config: AdaptConfig, block_length: int) -> tuple[Share, ...]:
    shares = [Share(_objective(config, block_length), 1 - config.ar_share)]
    if config.ar_share:
        shares.append(Share(_objective(config, 1), config.ar_share))
    return tuple(shares)


def _objective(config: AdaptConfig, block_length: int) -> Objective:
    return Blocks(block_length) if config.objective == "blocks" else BlockDiffusion(block_length)


class Adaptation(NamedTuple):
    """A job, and what the user should know of the conversion, in sentences."""

    job: Job
    notes: tuple[str, ...]


def adapt_job(config: AdaptConfig) -> Adaptation:
    """The job of an adaptation. CheckpointError or ConfigError for what cannot be adapted."""
    converted = convert(config.source, config.block_length)
    tokenizer = Tokenizer.from_file(str(config.source / "tokenizer.json"))
    if not knows_tasks(tokenizer):
        message = f"the built-in tasks need a checkpoint of the embedded family; name data for {config.source}"
        raise ConfigError(message, "data")
    ids = SpecialIds.of(tokenizer)
    decoder = ReferenceDecoder(converted.model, ids, config.block_length, threshold=None)
    job = Job(
        name="adapt",
        model=converted.model,
        files=converted.files,
        samples=TaskSamples(tokenizer, config.seed),
        mask=ids.mask,
        end=ids.end,
        curriculum=Curriculum(stages=stages(config)),
        optimisation=Optimisation(
            kind="muon",
            rate=config.rate,
            matrix_rate=config.matrix_rate,
            embedding_boost=2.5,
            gradient_clip=None,
        ),
        tokens_per_step=TINY_TOKENS_PER_STEP,
        row_lengths=ROW_LENGTHS,
        budget=config.budget(),
        validate=lambda: {
            kind: score.accuracy for kind, score in validate(decoder, tokenizer, config.validation_prompts).items()
        },
        record=_record(config, converted),
    )
    return Adaptation(job, converted.notes)


def knows_tasks(tokenizer: Tokenizer) -> bool:
    """Whether it is the embedded family's tokenizer, in which the built-in tasks are written."""
    return [tokenizer.id_to_token(index) for index in range(len(SPECIAL_TOKENS))] == list(SPECIAL_TOKENS)


def _record(config: AdaptConfig, converted: Converted) -> dict[str, JsonValue]:
    return {
        "initial": config.source.resolve().name,
        "seed": config.seed,
        "data_version": DATA_VERSION,
        "objective": config.objective,
        "curriculum": list(config.lengths),
        "ar_share": config.ar_share,
        "rates": {"matrices": config.matrix_rate, "others": config.rate},
        "notes": list(converted.notes),
    }
