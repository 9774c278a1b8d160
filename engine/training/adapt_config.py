"""What an adaptation is asked to do, and the stages that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from math import lcm
from pathlib import Path
from typing import Literal, get_args

from engine.errors import ConfigError
from engine.training.block_diffusion import BlockDiffusion
from engine.training.job import Budget, Share, Stage
from engine.training.noise import Blocks, Objective
from engine.training.row_encoder import Phase

ObjectiveName = Literal["sdar", "blocks"]

FIRST_BLOCK = 4
STEPS = 1000
TARGET_SHARE = 0.5
"""Of the training, spent on the last block length of a curriculum."""
WARMUP_SHARE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptConfig:
    """What to adapt, to which block length, and how. None and empty mean: what suits data and checkpoint.

    ``phases`` follow each other, each for its part of ``phase_shares`` (equal ones where there are none).
    ``curriculum`` are the block lengths on the way, the target last. ``ar_share`` of the rows are autoregressive,
    blocks of 1. ``data`` and ``validation`` are JSONL files; without data the built-in tasks serve. ``sequence_length``
    counts tokens of text; a row has each twice, noised and clean. ``router_aux`` weighs the loss that balances experts.
    ``shapes_only`` leaves the weights where they are: for a plan of the training.
    """

    source: Path
    block_length: int = FIRST_BLOCK
    objective: ObjectiveName | None = None
    phases: tuple[Phase, ...] = ("sft",)
    phase_shares: tuple[float, ...] = ()
    curriculum: tuple[int, ...] = ()
    ar_share: float = 0.0
    data: tuple[Path, ...] = ()
    validation: Path | None = None
    sequence_length: int | None = None
    rows_per_step: int = 1
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    optimizer: Literal["adamw", "muon"] | None = None
    rate: float | None = None
    matrix_rate: float | None = None
    router_aux: float | None = None
    freeze_router: bool = False
    validation_prompts: int = 24
    shapes_only: bool = False

    def __post_init__(self) -> None:
        self._check_choices()
        lengths = self.lengths
        if min(lengths) < 1 or list(lengths) != sorted(set(lengths)) or lengths[-1] != self.block_length:
            found = ", ".join(map(str, lengths))
            raise ConfigError(f"curriculum must grow up to {self.block_length}, got {found}", "curriculum")
        if not 0 <= self.ar_share < 1:
            raise ConfigError(f"ar_share must be at least 0 and below 1, got {self.ar_share}", "ar_share")
        if self.phase_shares and (len(self.phase_shares) != len(self.phases) or min(self.phase_shares) <= 0):
            message = f"stage_shares must be {len(self.phases)} numbers above 0, one for each stage"
            raise ConfigError(message, "stage_shares")
        if self.sequence_length is not None and self.sequence_length % self.longest_unit:
            message = f"sequence_length must be a multiple of all block lengths ({self.longest_unit})"
            raise ConfigError(f"{message}, got {self.sequence_length}", "sequence_length")

    def _check_choices(self) -> None:
        if not self.phases or len(set(self.phases)) < len(self.phases) or set(self.phases) - set(get_args(Phase)):
            raise ConfigError(f"stage must be cpt, sft or cpt,sft; got {','.join(self.phases)!r}", "stage")
        if self.objective not in (None, *get_args(ObjectiveName)):
            raise ConfigError(f"objective must be sdar or blocks, got {self.objective!r}", "objective")
        if self.objective == "blocks" and "cpt" in self.phases:
            message = "objective blocks noises answers alone; the stage cpt needs the objective sdar"
            raise ConfigError(message, "objective")
        if self.optimizer not in (None, "adamw", "muon"):
            raise ConfigError(f"optimizer must be adamw or muon, got {self.optimizer!r}", "optimizer")
        if self.router_aux and self.freeze_router:
            raise ConfigError("router_aux has no effect on a frozen router; choose one", "router_aux")

    @property
    def lengths(self) -> tuple[int, ...]:
        """The block lengths in turn."""
        return self.curriculum or doubling(self.block_length)

    @property
    def longest_unit(self) -> int:
        """Sequences are whole blocks of every length."""
        return lcm(*self.lengths)

    @property
    def budget(self) -> Budget:
        """A thousand steps where nothing is said."""
        return Budget.or_default(self.steps, self.minutes, STEPS)

    @property
    def warmup_steps(self) -> int:
        """3 % of the steps; 50 where time alone is bounded."""
        steps = self.budget.steps
        return 50 if steps is None else min(50, round(WARMUP_SHARE * steps))


def doubling(block_length: int) -> tuple[int, ...]:
    """4, 8, 16 ... and the target last."""
    smaller = takewhile(lambda length: length < block_length, (FIRST_BLOCK << n for n in range(block_length)))
    return (*smaller, block_length)


def stages(config: AdaptConfig, default: ObjectiveName) -> tuple[Stage, ...]:
    """Phases and block lengths, each by its own ends, laid over each other. ``default`` is the objective where none is
    asked for."""
    shares = config.phase_shares or (1.0,) * len(config.phases)
    phase_ends = [sum(shares[: index + 1]) / sum(shares) for index in range(len(shares))]
    length_ends = _length_ends(len(config.lengths))
    name = config.objective or default

    def stage(end: float) -> Stage:
        phase = config.phases[_first_reaching(phase_ends, end)]
        length = config.lengths[_first_reaching(length_ends, end)]
        return Stage(end, _mixture(name, length, phase, config.ar_share))

    return tuple(stage(end) for end in sorted({*phase_ends[:-1], *length_ends[:-1], 1.0}))


def _length_ends(count: int) -> list[float]:
    """The last block length has half of the training, those before share the other half."""
    return [(1 - TARGET_SHARE) * (index + 1) / (count - 1) for index in range(count - 1)] + [1.0]


def _first_reaching(ends: list[float], fraction: float) -> int:
    return next((index for index, end in enumerate(ends) if end >= fraction), len(ends) - 1)


def _mixture(name: ObjectiveName, block_length: int, phase: Phase, ar_share: float) -> tuple[Share, ...]:
    def objective(length: int) -> Objective:
        return Blocks(length) if name == "blocks" else BlockDiffusion(length, phase)

    shares = (Share(objective(block_length), 1 - ar_share),)
    return (*shares, Share(objective(1), ar_share)) if ar_share else shares
