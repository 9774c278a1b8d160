"""A job that trains in milliseconds: a network of one layer on made-up samples, and what a script needs to run it."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from engine.models.registry import model_family
from engine.models.spec import DiffusionLM, ModelSpec
from engine.training.data import EncodedSample
from engine.training.families import FAMILIES
from engine.training.job import (
    BadRows,
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
from engine.training.metrics import RunFiles, TrainProgress
from engine.training.noise import Blocks
from engine.training.trainer import TrainResult, TrainSettings, train
from engine.training.world import World

MASK, END = 62, 63
SPEC = ModelSpec(
    architecture="SDARForCausalLM",
    attention="block_causal",
    vocab_size=64,
    hidden_size=16,
    intermediate_size=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    max_position_embeddings=64,
    rope_theta=10000.0,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
    attention_bias=False,
    mask_token_id=MASK,
    stop_token_ids=frozenset({END}),
    block_length=4,
)
MUON = Optimisation(kind="muon", rate=0.01, matrix_rate=0.02, gradient_clip=None)
ADAMW = Optimisation(kind="adamw", rate=0.01, gradient_clip=1.0)


class CountingSamples(SampleStream):
    """Prompts count up, answers go on; every seventh row of the "file" is bad."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._taken = 0
        self._bad_rows = BadRows()

    @property
    def bad_rows(self) -> BadRows:
        return self._bad_rows

    def take(self) -> EncodedSample:
        self._taken += 1
        if self._taken % 7 == 0:
            self._bad_rows.add(f"data.jsonl:{self._taken}", "no answer")
        start, length = self._rng.randrange(20), self._rng.randrange(3, 9)
        numbers = list(range(start, start + length + 4))
        return EncodedSample(numbers[:-4], [*numbers[-4:], END])

    def state(self) -> Mapping[str, JsonValue]:
        return {"taken": self._taken}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        while self._taken != state["taken"]:
            self.take()


def tiny_job(
    steps: int,
    optimisation: Optimisation = MUON,
    *,
    spec: ModelSpec = SPEC,
    row_lengths: tuple[int, ...] = (24, 28, 32, 48),
    validate: Callable[[], Mapping[str, float]] | None = None,
) -> Job:
    model: DiffusionLM = model_family(spec.architecture).model_class()(spec)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.1, generator)
    return Job(
        name="tiny",
        model=model,
        files=CheckpointFiles(
            config=FAMILIES["sdar"].config(spec), generation_config={}, write_tokenizer=lambda folder: None
        ),
        samples=CountingSamples(0),
        mask=MASK,
        end=END,
        curriculum=Curriculum(
            stages=(Stage(0.5, (Share(Blocks(1)),)), Stage(1.0, (Share(Blocks(1)), Share(Blocks(4))), 0.7)),
            warmup_steps=2,
        ),
        optimisation=optimisation,
        tokens_per_step=192,
        row_lengths=row_lengths,
        budget=Budget(steps, None),
        validate=validate,
        record={"data": "counting"},
    )


def run(
    job: Job, output: Path, on_progress: Callable[[TrainProgress], None] = lambda _: None, **options: object
) -> TrainResult:
    """Train in float32, reporting every step."""
    settings = TrainSettings(output=output, compile=False, bfloat16=False, report_every_s=0.0)
    return train(job, replace(settings, **options), on_progress)  # type: ignore[arg-type]


def losses(output: Path) -> list[float]:
    """The loss of every step, from the metrics."""
    lines = RunFiles(output).metrics.read_text().splitlines()
    by_step = {int(line["step"]): float(line["loss"]) for line in map(json.loads, lines)}
    assert list(by_step) == list(range(1, len(by_step) + 1)), "one report per step, in order"
    return list(by_step.values())


def _print_step(progress: TrainProgress) -> None:
    sys.stdout.write(f"{progress.step}\n")
    sys.stdout.flush()


def train_on_two(output: Path) -> None:
    """On each of two processes: both must be there, or the training waits."""
    assert World.of_environment().size == 2
    run(tiny_job(2, ADAMW), output)


def main() -> None:
    """A training in a process of its own, as its one argument says in JSON: "output", "steps", other settings."""
    options = json.loads(sys.argv[1])
    run(tiny_job(options.pop("steps")), Path(options.pop("output")), _print_step, **options)


if __name__ == "__main__":
    main()
