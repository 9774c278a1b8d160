"""Jobs that distil a model's trajectories into fewer steps, and the control that shows what trajectories add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer

from engine.errors import ConfigError, UnsupportedModelError
from engine.models.checkpoint import CONFIG_FILE, Checkpoint, open_checkpoint
from engine.models.json_fields import JsonFields
from engine.models.loader import load_model
from engine.models.spec import DiffusionLM, ModelSpec
from engine.models.special_tokens import read_special_tokens
from engine.training.adapt import knows_tasks
from engine.training.base import TaskSamples
from engine.training.batches import ROW_LENGTHS
from engine.training.data import EncodedSample, SpecialIds
from engine.training.families import ROUTER_BALANCE
from engine.training.job import (
    Budget,
    CheckpointFiles,
    Curriculum,
    Job,
    JsonValue,
    Optimisation,
    SampleStream,
    Share,
    Stage,
)
from engine.training.mask_token import choose_mask_token, tokenizer_writer
from engine.training.noise import Blocks, Canvas, Objective
from engine.training.replay import DistillSamples, Repeated, Replay
from engine.training.trajectories import Attempt, Heading
from engine.training.transitions import BlockTransition, CanvasTransition, Compress
from engine.training.validation import ReferenceDecoder, exact_matches

STEPS = 300
ROW_MULTIPLE, STEPS_OF_LENGTHS = 64, 16
MARGIN = 64
"""Canvases of ordinary rows may be longer than those of the trajectories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """How to train on trajectories.

    ``control`` trains on the same answers with random masks instead. ``replay_share`` of the rows are ordinary ones:
    other samples, random masks. Answers of ``answer_tokens`` (with the stop id) are used. Rates are peaks,
    ``matrix_rate`` that of Muon (None: AdamW for everything, as for large models).
    """

    source: Path
    control: bool = False
    compress: Compress = field(default_factory=Compress)
    replay_share: float = 0.25
    answer_tokens: tuple[int, int] = (2, 4096)
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    tokens_per_step: int = 2304
    matrix_rate: float | None = 0.003
    rate: float = 0.0006
    validation_prompts: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.replay_share < 1:
            raise ConfigError(f"replay_share must be in 0..1 and below 1, got {self.replay_share}", "replay_share")
        low, high = self.answer_tokens
        if not 1 <= low <= high:
            message = f"answer_tokens must be LOW..HIGH with 1 <= LOW <= HIGH, got {low}..{high}"
            raise ConfigError(message, "answer_tokens")

    def budget(self) -> Budget:
        """Some passes over some thousand answers where nothing is said."""
        return Budget.or_default(self.steps, self.minutes, STEPS)


def usable(attempts: Sequence[Attempt], answer_tokens: tuple[int, int]) -> list[EncodedSample]:
    """Right answers of a length that is wanted; ConfigError where there are none."""
    low, high = answer_tokens
    samples = [attempt.sample() for attempt in attempts if low <= attempt.answer_len <= high]
    if not samples:
        message = f"no trajectory with a right answer of {low}..{high} tokens: nothing to learn from"
        raise ConfigError(message, "trajectories")
    return samples


def transition(spec: ModelSpec, heading: Heading, compress: Compress) -> Objective:
    """The objective that suits the model's attention."""
    if spec.attention == "block_causal":
        return BlockTransition(heading.block_length, compress)
    return CanvasTransition(compress)


def ordinary(spec: ModelSpec, block_length: int) -> tuple[Objective, ...]:
    """The model's own objectives, in equal parts: random masks in blocks, or in one block and on the whole canvas."""
    if spec.attention == "block_causal":
        return (Blocks(block_length),)
    return Canvas(block_length), Canvas(None)


def mixture(spec: ModelSpec, heading: Heading, config: DistillConfig) -> tuple[Share, ...]:
    """What rows are made of."""
    plain = ordinary(spec, heading.block_length)
    own = plain if config.control else (transition(spec, heading, config.compress),)
    shares = [Share(objective, (1 - config.replay_share) / len(own)) for objective in own]
    if config.replay_share:
        shares += [Share(Replay(objective), config.replay_share / len(plain)) for objective in plain]
    return tuple(shares)


def distill_job(
    config: DistillConfig,
    heading: Heading,
    attempts: Sequence[Attempt],
    ordinary_samples: SampleStream | None = None,
) -> Job:
    """The job of a distillation; ``attempts`` are right. ``ordinary_samples`` None: the built-in tasks, where the
    tokenizer knows them, else the same answers."""
    checkpoint = open_checkpoint(config.source)
    spec = checkpoint.spec
    if spec.logit_shift:
        message = f"{spec.architecture}: networks whose logits are shifted cannot be distilled yet"
        raise UnsupportedModelError(message, "architectures")
    files = files_like(checkpoint)
    samples = usable(attempts, config.answer_tokens)
    tokenizer = _tokenizer(config.source)
    replayed = ordinary_samples or _ordinary_stream(tokenizer, samples, config.seed)
    model = load_model(config.source, spec, torch.float32, "cpu").requires_grad_().train()
    softmax_router = spec.moe is not None and not spec.moe.expert_bias
    return Job(
        name="control" if config.control else "distill",
        model=model,
        files=files,
        samples=DistillSamples(Repeated(samples, config.seed), replayed),
        mask=spec.mask_token_id,
        end=min(spec.stop_token_ids),
        curriculum=Curriculum(
            stages=(Stage(1.0, mixture(spec, heading, config)),), warmup_steps=20, decay_from=0.3, final_rate=0.05
        ),
        optimisation=_optimisation(config),
        tokens_per_step=config.tokens_per_step,
        row_lengths=row_lengths(spec, samples),
        budget=config.budget(),
        router_balance=ROUTER_BALANCE if softmax_router else 0.0,
        validate=_validation(model, tokenizer, heading, config.validation_prompts),
        record=_record(config, heading, len(samples)),
    )


def files_like(checkpoint: Checkpoint) -> CheckpointFiles:
    """The other files of a checkpoint as they are."""
    folder = checkpoint.path
    config = JsonFields.read(folder / CONFIG_FILE)
    mask = choose_mask_token(config, read_special_tokens(folder))
    return CheckpointFiles(
        config=dict(config.items()),
        generation_config=dict(JsonFields.read_optional(folder / "generation_config.json").items()),
        write_tokenizer=tokenizer_writer(folder, mask),
        dtype=checkpoint.weights.dtype,
    )


def row_lengths(spec: ModelSpec, samples: Sequence[EncodedSample]) -> tuple[int, ...]:
    """Lengths to pad rows to: those of the tiny models, and where rows are longer some multiples of 64."""
    copies = 2 if spec.attention == "block_causal" else 1
    longest = copies * max(len(sample.prompt) + len(sample.canvas) for sample in samples) + MARGIN
    if longest <= ROW_LENGTHS[-1]:
        return ROW_LENGTHS
    step = -(-longest // (STEPS_OF_LENGTHS * ROW_MULTIPLE)) * ROW_MULTIPLE
    return (*(length for length in ROW_LENGTHS if length < step), *range(step, longest + step, step))


def _tokenizer(folder: Path) -> Tokenizer | None:
    """None: the tokenizer does not know the built-in tasks."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return tokenizer if knows_tasks(tokenizer) else None


def _ordinary_stream(tokenizer: Tokenizer | None, samples: Sequence[EncodedSample], seed: int) -> SampleStream:
    if tokenizer is not None:
        return TaskSamples(tokenizer, seed)
    return Repeated(samples, seed)


def _optimisation(config: DistillConfig) -> Optimisation:
    if config.matrix_rate is None:
        return Optimisation(kind="adamw", rate=config.rate)
    return Optimisation(kind="muon", rate=config.rate, matrix_rate=config.matrix_rate, gradient_clip=None)


def _validation(
    model: DiffusionLM, tokenizer: Tokenizer | None, heading: Heading, prompts: int
) -> Callable[[], Mapping[str, float]] | None:
    """Exact match on the built-in tasks, where they are known and asked for."""
    if tokenizer is None or not prompts:
        return None
    decoder = ReferenceDecoder(model, SpecialIds.of(tokenizer), heading.block_length, threshold=0.9)
    return lambda: exact_matches(decoder, tokenizer, prompts)


def _record(config: DistillConfig, heading: Heading, num_samples: int) -> dict[str, JsonValue]:
    return {
        "initial": config.source.resolve().name,
        "seed": config.seed,
        "objective": "random masks" if config.control else "compressed transitions",
        "compress": None if config.control else [config.compress.low, config.compress.high],
        "replay_share": config.replay_share,
        "answer_tokens": list(config.answer_tokens),
        "trajectories": num_samples,
        "strategy": dict(heading.strategy),
        "rates": {"matrices": config.matrix_rate, "others": config.rate},
    }
