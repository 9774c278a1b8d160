"""What a training is, apart from how it is run: network, samples, objectives, rates, files of its checkpoint.

The commands differ in the job that they make (``base.py``, ``adapt.py``, ``distill.py``); the Trainer runs any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from engine.models.spec import DiffusionLM
from engine.training.data import EncodedSample
from engine.training.noise import Objective

JsonValue = object
MAX_EXAMPLES = 5


class BadRows:
    """Rows of the user's data that cannot be trained on: how many, and the first few with place and reason.

    All of them wait for :meth:`take_unwritten`, which the Trainer calls now and then to append them to a file.
    """

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []
        self._unwritten: list[dict[str, str]] = []

    def add(self, place: str, reason: str) -> None:
        """Count one; ``place`` is a file and a line."""
        self.count += 1
        self._unwritten.append({"place": place, "reason": reason})
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"{place}: {reason}")

    def take_unwritten(self) -> list[dict[str, str]]:
        """Those that were added since the last call."""
        taken, self._unwritten = self._unwritten, []
        return taken

    def state(self) -> dict[str, JsonValue]:
        """Count and examples as JSON values."""
        return {"count": self.count, "examples": list(self.examples)}

    def restore(self, count: int, examples: list[str]) -> None:
        """Go back to a :meth:`state`; what was found since is forgotten and will be found again."""
        self.count, self.examples, self._unwritten = count, list(examples), []


class SampleStream(ABC):
    """Training samples without end, in an order that follows from a seed alone.

    A stream is at one place at a time; ``state`` names it in plain JSON values, and a stream made with the same
    arguments goes on there after ``restore``.
    """

    @abstractmethod
    def take(self) -> EncodedSample:
        """The next sample."""

    def take_for(self, objective: Objective) -> EncodedSample:
        """The next sample that suits the objective; streams that hold one kind of samples leave this alone."""
        return self.take()

    @property
    def bad_rows(self) -> BadRows | None:
        """Rows that could not be used so far; None where the data cannot have any."""
        return None

    @abstractmethod
    def state(self) -> Mapping[str, JsonValue]:
        """Where the stream is."""

    @abstractmethod
    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """Go to where another stream was when it returned ``state``."""


@dataclass(frozen=True, slots=True)
class Share:
    """An objective and its share of the rows."""

    objective: Objective
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A mixture of objectives that holds until the given fraction of the training; ``rate`` scales the learning
    rates."""

    until: float
    mixture: tuple[Share, ...]
    rate: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """Objectives and the share of the peak learning rates over a training.

    Warm-up over ``warmup_steps``, a plateau, from the fraction ``decay_from`` on a linear decay to ``final_rate`` (1.0:
    constant).
    """

    stages: tuple[Stage, ...]
    warmup_steps: int = 50
    decay_from: float = 0.55
    final_rate: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """Peak learning rates and what else the optimiser needs.

    "muon" orthogonalises the updates of matrices (``matrix_rate``) and leaves embeddings, head, routers and vectors to
    AdamW (``rate``); "adamw" leaves everything to AdamW. ``gradient_clip`` bounds the gradient's norm (None: no bound).
    """

    kind: Literal["muon", "adamw"] = "adamw"
    rate: float = 1e-5
    matrix_rate: float = 0.02
    embedding_boost: float = 1.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clip: float | None = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """Everything of a checkpoint but its weights: published config, tokenizer files, type of the stored weights."""

    config: Mapping[str, JsonValue]
    generation_config: Mapping[str, JsonValue]
    write_tokenizer: Callable[[Path], None]
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: until ``steps``, or until ``minutes`` of wall clock, whichever comes first; 0 steps: not at
    all."""

    steps: int | None
    minutes: float | None

    @classmethod
    def or_default(cls, steps: int | None, minutes: float | None, default: int) -> Budget:
        """What was asked for, ``default`` steps where nothing was."""
        return cls(default if steps is None and minutes is None else steps, minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training. ``tokens_per_step`` is the size of a (micro-)batch on one process, padding included.

    ``row_lengths`` are the lengths that rows are padded to; longer rows are dropped and counted. ``packed`` rows are
    filled with several samples. ``mask`` and ``end`` are token ids. ``router_balance`` is the weight of the loss that
    balances the load of experts (``router_loss.py``; 0: none). ``validate`` returns named numbers in 0..1 that are
    written beside the loss, None: there is nothing to decode. ``record`` goes into the checkpoint's ``training.json``;
    a training is only resumed with an equal one, so it names everything that decides the result: recipe, data, where
    the weights came from.
    """

    name: str
    model: DiffusionLM
    files: CheckpointFiles
    samples: SampleStream
    mask: int
    end: int
    curriculum: Curriculum
    optimisation: Optimisation
    tokens_per_step: int
    row_lengths: tuple[int, ...]
    budget: Budget
    packed: bool = False
    router_balance: float = 0.0
    validate: Callable[[], Mapping[str, float]] | None = None
    record: Mapping[str, JsonValue] = field(default_factory=dict)
