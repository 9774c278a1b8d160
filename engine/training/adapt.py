"""Jobs that turn an autoregressive checkpoint into a block-diffusion one, on built-in tasks or on the user's data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from engine.errors import CheckpointError, ConfigError
from engine.evaluation.tasks.table import DATA_VERSION
from engine.fast_tokenizer import FastTokenizer
from engine.layers.moe import Router
from engine.models.checkpoint import CONFIG_FILE
from engine.models.json_fields import JsonFields
from engine.tokenizer import load_tokenizer
from engine.training.adapt_config import AdaptConfig, stages
from engine.training.base import TaskSamples
from engine.training.batches import ROW_LENGTHS
from engine.training.block_diffusion import BlockDiffusion
from engine.training.checkpoint import save_checkpoint
from engine.training.conversion import Converted, convert
from engine.training.data import EncodedSample, SpecialIds
from engine.training.job import BadRows, Curriculum, Job, JsonValue, Optimisation, SampleStream
from engine.training.jsonl import JsonlSamples
from engine.training.likelihood import HeldOut, read_samples
from engine.training.noise import Objective
from engine.training.row_encoder import Phase, RowEncoder
from engine.training.tokenizer import SPECIAL_TOKENS
from engine.training.validation import ReferenceDecoder, exact_matches

SEQUENCE_LENGTH = 2048
ROUTER_AUX = 0.001
TINY_TOKENS_PER_STEP = 4608
TINY = Optimisation(kind="muon", rate=0.004, matrix_rate=0.02, embedding_boost=2.5, gradient_clip=None)
"""The rates of the embedded family, which is trained from nothing with them."""
PUBLISHED = Optimisation(kind="adamw", rate=1e-5, gradient_clip=1.0)
"""SDAR's fine-tuning: AdamW at a constant rate behind a short warm-up."""


class Adaptation(NamedTuple):
    """A job, and what the user should know of the conversion, in sentences."""

    job: Job
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """What differs between the built-in tasks and the user's data."""

    samples: SampleStream
    curriculum: Curriculum
    optimisation: Optimisation
    tokens_per_step: int
    row_lengths: tuple[int, ...]
    packed: bool
    validate: Callable[[], Mapping[str, float]] | None
    record: Mapping[str, JsonValue]


class PhasedSamples(SampleStream):
    """A stream for each phase; the objective says which it needs. Bad rows are those of all phases."""

    def __init__(self, streams: Mapping[Phase, JsonlSamples], bad_rows: BadRows) -> None:
        self._streams = streams
        self._bad_rows = bad_rows

    @property
    def bad_rows(self) -> BadRows:
        return self._bad_rows

    def take(self) -> EncodedSample:
        return next(iter(self._streams.values())).take()

    def take_for(self, objective: Objective) -> EncodedSample:
        phase: Phase = objective.stage if isinstance(objective, BlockDiffusion) else "sft"
        return self._streams[phase].take()

    def state(self) -> Mapping[str, JsonValue]:
        return {phase: stream.state() for phase, stream in self._streams.items()}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        for phase, stream in self._streams.items():
            place = state[phase]
            assert isinstance(place, dict)
            stream.restore(place)


def adapt_job(config: AdaptConfig) -> Adaptation:
    """The job of an adaptation. CheckpointError or ConfigError for what cannot be adapted."""
    converted = convert(config.source, config.block_length, shapes_only=config.shapes_only)
    material = _data(config, converted) if config.data else _tasks(config, converted)
    routers = [module for module in converted.model.modules() if isinstance(module, Router)]
    if not routers and (config.router_aux or config.freeze_router):
        name = "router_aux" if config.router_aux else "freeze_router"
        raise ConfigError(f"{name}: {config.source} has no experts to route to", name)
    for router in routers:
        router.requires_grad_(not config.freeze_router)
    job = Job(
        name="adapt",
        model=converted.model,
        files=converted.files,
        samples=material.samples,
        mask=converted.model.spec.mask_token_id,
        end=converted.end,
        curriculum=material.curriculum,
        optimisation=_optimisation(config, material.optimisation),
        tokens_per_step=material.tokens_per_step,
        row_lengths=material.row_lengths,
        budget=config.budget,
        packed=material.packed,
        router_balance=_router_balance(config, converted),
        validate=material.validate,
        record=_record(config, converted, material),
    )
    return Adaptation(job, converted.notes)


def convert_only(config: AdaptConfig, output: Path) -> tuple[str, ...]:
    """Save the checkpoint as it is before any training; returns what the user should know of the conversion."""
    converted = convert(config.source, config.block_length)
    record = {"initial": config.source.resolve().name, "steps": 0, "notes": list(converted.notes)}
    save_checkpoint(output, converted.model, converted.files, record)
    return converted.notes


def knows_tasks(tokenizer: Tokenizer) -> bool:
    """Whether it is the embedded family's tokenizer, in which the built-in tasks are written."""
    return [tokenizer.id_to_token(index) for index in range(len(SPECIAL_TOKENS))] == list(SPECIAL_TOKENS)


def _tasks(config: AdaptConfig, converted: Converted) -> Material:
    """The built-in tasks, in batches of rows of similar length; held-out prompts are decoded."""
    tokenizer = Tokenizer.from_file(str(config.source / "tokenizer.json"))
    if not knows_tasks(tokenizer):
        message = f"the built-in tasks suit the embedded family alone; {config.source} needs --data FILE.jsonl"
        raise ConfigError(message, "data")
    return Material(
        samples=TaskSamples(tokenizer, config.seed),
        curriculum=Curriculum(stages=stages(config, "blocks"), warmup_steps=config.warmup_steps),
        optimisation=TINY,
        tokens_per_step=TINY_TOKENS_PER_STEP,
        row_lengths=ROW_LENGTHS,
        packed=False,
        validate=_accuracy(config, converted, tokenizer),
        record={"tasks": DATA_VERSION},
    )


def _accuracy(config: AdaptConfig, converted: Converted, tokenizer: Tokenizer) -> Callable[[], Mapping[str, float]]:
    decoder = ReferenceDecoder(converted.model, SpecialIds.of(tokenizer), config.block_length, threshold=None)

    return lambda: exact_matches(decoder, tokenizer, config.validation_prompts)


def _data(config: AdaptConfig, converted: Converted) -> Material:
    """The user's data, packed to sequences of one length."""
    spec = converted.model.spec
    tokenizer = load_tokenizer(config.source, {spec.mask_token_id, *spec.stop_token_ids})
    if not isinstance(tokenizer, FastTokenizer):
        raise CheckpointError(f"{config.source} has no tokenizer to read data with", "tokenizer.json")
    longest = spec.max_position_embeddings // config.longest_unit * config.longest_unit
    length = config.sequence_length or min(SEQUENCE_LENGTH // config.longest_unit * config.longest_unit, longest)
    if length > longest:
        message = f"sequence_length {length} exceeds the {longest} positions of {config.source}"
        raise ConfigError(message, "sequence_length")
    encoder = RowEncoder(
        tokenizer=tokenizer,
        phase=config.phases[-1],
        max_tokens=length,
        end=converted.end,
        stop_ids=spec.stop_token_ids,
        leave_texts="cpt" in config.phases,
    )
    bad_rows = BadRows()
    streams = {
        phase: JsonlSamples(config.data, replace(encoder, phase=phase), config.seed, bad_rows)
        for phase in config.phases
    }
    return Material(
        samples=PhasedSamples(streams, bad_rows),
        curriculum=Curriculum(
            stages=stages(config, "sdar"), warmup_steps=config.warmup_steps, decay_from=1.0, final_rate=1.0
        ),
        optimisation=PUBLISHED,
        tokens_per_step=2 * length * config.rows_per_step,
        row_lengths=(2 * length,),
        packed=True,
        validate=_likelihood(config, converted, encoder),
        record={
            "data": [{"file": path.name, "bytes": path.stat().st_size} for path in config.data],
            "sequence_length": length,
        },
    )


def _likelihood(
    config: AdaptConfig, converted: Converted, encoder: RowEncoder
) -> Callable[[], Mapping[str, float]] | None:
    if config.validation is None:
        return None
    return HeldOut(
        model=converted.model,
        samples=read_samples(config.validation, encoder),
        objective=BlockDiffusion(config.block_length, config.phases[-1]),
        mask=converted.model.spec.mask_token_id,
        end=converted.end,
        row_length=2 * encoder.max_tokens,
    )


def _optimisation(config: AdaptConfig, default: Optimisation) -> Optimisation:
    return replace(
        default,
        kind=config.optimizer or default.kind,
        rate=default.rate if config.rate is None else config.rate,
        matrix_rate=default.matrix_rate if config.matrix_rate is None else config.matrix_rate,
    )


def _router_balance(config: AdaptConfig, converted: Converted) -> float:
    """As asked for, else the checkpoint's own weight of that loss, else Qwen3-MoE's; 0 where no router is trained."""
    if converted.model.spec.moe is None or config.freeze_router:
        return 0.0
    if config.router_aux is not None:
        return config.router_aux
    return JsonFields(CONFIG_FILE, converted.files.config).positive("router_aux_loss_coef", ROUTER_AUX)


def _record(config: AdaptConfig, converted: Converted, material: Material) -> dict[str, JsonValue]:
    return {
        "initial": config.source.resolve().name,
        "seed": config.seed,
        "block_length": config.block_length,
        "stages": [
            {"until": stage.until, "mixture": {repr(share.objective): share.weight for share in stage.mixture}}
            for stage in material.curriculum.stages
        ],
        "router_balance": _router_balance(config, converted),
        "optimisation": repr(_optimisation(config, material.optimisation)),
        "notes": list(converted.notes),
        **material.record,
    }
