"""The table of tasks, a stream of training samples and sets of held-out prompts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from engine.errors import ConfigError
from engine.evaluation.tasks.knowledge import chat, fact, fill_gap
from engine.evaluation.tasks.numbers import arithmetic, conversion, word_problem
from engine.evaluation.tasks.sample import Generator, Sample, is_held_out
from engine.evaluation.tasks.texts import code, json_record, list_operation, story

DATA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of question; ``weight`` is its share of the training data."""

    generate: Generator
    weight: float


TASKS: dict[str, Task] = {
    "arithmetic": Task(arithmetic, 0.14),
    "word_problem": Task(word_problem, 0.18),
    "conversion": Task(conversion, 0.09),
    "json": Task(json_record, 0.15),
    "code": Task(code, 0.10),
    "story": Task(story, 0.11),
    "fact": Task(fact, 0.08),
    "chat": Task(chat, 0.03),
    "list": Task(list_operation, 0.08),
    "fill": Task(fill_gap, 0.04),
}

ATTEMPTS_PER_SAMPLE = 200


def training_samples(seed: int) -> Iterator[Sample]:
    """An endless stream over all tasks, by weight, without any held-out prompt."""
    rng = random.Random(f"train-{seed}")
    kinds = tuple(TASKS)
    weights = [TASKS[kind].weight for kind in kinds]
    while True:
        kind = rng.choices(kinds, weights)[0]
        prompt, answer = TASKS[kind].generate(rng)
        if not is_held_out(prompt):
            yield Sample(kind, prompt, answer)


def held_out_samples(kind: str, count: int, seed: int = 0) -> list[Sample]:
    """Up to ``count`` distinct held-out prompts of a kind; fewer where the kind is a small closed set."""
    if kind not in TASKS:
        raise ConfigError(f"There is no task {kind!r}; choose from {', '.join(TASKS)}.", "kind")
    rng = random.Random(f"held-out-{kind}-{seed}")
    found: dict[str, Sample] = {}
    for _ in range(ATTEMPTS_PER_SAMPLE * count):
        if len(found) == count:
            break
        prompt, answer = TASKS[kind].generate(rng)
        if is_held_out(prompt):
            found[prompt] = Sample(kind, prompt, answer)
    return list(found.values())
