"""What is asked: prompts and lengths, strategies and priorities, the same for the same seed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from engine.errors import ConfigError
from engine.evaluation.datasets import held_out_set

TOKEN_IDS = (16, 1000)
"""Ids of random prompts: in the vocabulary of every known checkpoint, and no special tokens of the embedded ones."""
SHORTEST_SHARE = 0.25
_LENGTHS = re.compile(r"(?P<low>\d+)(-(?P<high>\d+))?")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Evenly distributed between two numbers of tokens, both included."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """``128`` or ``32-256``; ValueError for anything else."""
        found = _LENGTHS.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is neither a number nor a range such as 32-256")
        lengths = cls(int(found["low"]), int(found["high"] or found["low"]))
        if not 1 <= lengths.low <= lengths.high:
            raise ValueError(f"{text!r} is no range of positive numbers")
        return lengths

    def mixed(self) -> Lengths:
        """From a quarter of the longest up."""
        return Lengths(max(round(self.high * SHORTEST_SHARE), 1), self.high)

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """One request as a client would write it. ``strategy`` are its options, {} the model's own."""

    prompt: str | tuple[int, ...]
    max_tokens: int
    model: str = ""
    strategy: Mapping[str, object] = field(default_factory=dict)
    priority: int = 0
    stream: bool = True
    ignore_eos: bool = True
    timeout_s: float = 120.0

    @property
    def group(self) -> str:
        """Requests with the same strategy and priority are told about together."""
        return json.dumps(dict(self.strategy)) + (f" priority {self.priority}" if self.priority else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMix:
    """How requests are drawn. ``prompts`` are taken in turn, with what else their records say, or lengths of prompts of
    random ids; every strategy and priority is as likely as the others."""

    prompts: Sequence[PromptRecord] | Lengths
    max_tokens: Lengths
    base: LoadRequest
    strategies: Sequence[Mapping[str, object]] = ({},)
    priorities: Sequence[int] = (0,)

    def make(self, index: int, seed: int) -> LoadRequest:
        """The ``index``-th request of a run."""
        rng = np.random.default_rng((seed, index))
        drawn = replace(
            self.base,
            max_tokens=self.max_tokens.draw(rng),
            strategy=self.strategies[int(rng.integers(len(self.strategies)))],
            priority=self.priorities[int(rng.integers(len(self.priorities)))],
        )
        if isinstance(self.prompts, Lengths):
            return replace(drawn, prompt=tuple(rng.integers(*TOKEN_IDS, self.prompts.draw(rng)).tolist()))
        return self.prompts[index % len(self.prompts)].applied(drawn)

    def of(self, **fields: Any) -> RequestMix:
        """The mix with other values in every request that its prompts do not say themselves."""
        return replace(self, base=replace(self.base, **fields))


@validated(frozen=True, slots=True, config=ConfigDict(extra="forbid", strict=True))
class PromptRecord:
    """A prompt, and what a data file says of its request."""

    prompt: str
    max_tokens: int | None = None
    strategy: Mapping[str, object] | None = None
    priority: int | None = None

    def applied(self, drawn: LoadRequest) -> LoadRequest:
        return replace(
            drawn,
            prompt=self.prompt,
            max_tokens=drawn.max_tokens if self.max_tokens is None else self.max_tokens,
            strategy=drawn.strategy if self.strategy is None else self.strategy,
            priority=drawn.priority if self.priority is None else self.priority,
        )


def task_prompts(seed: int, per_kind: int = 20) -> list[PromptRecord]:
    """Held-out questions of the built-in tasks, all kinds mixed."""
    samples = held_out_set(None, per_kind, seed)
    order = np.random.default_rng(seed).permutation(len(samples))
    return [PromptRecord(samples[place].prompt) for place in order]


def read_prompts(path: Path) -> list[PromptRecord]:
    """Lines ``{"prompt": ..., "max_tokens": ..., "strategy": {...}, "priority": ...}``, of which only the prompt is
    needed. ConfigError names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "data") from error
    records = [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise ConfigError(f"{path} has no lines", "data")
    return records


def _record(line: str, place: str) -> PromptRecord:
    try:
        return _RECORD.validate_json(line)
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        name = ".".join(map(str, finding["loc"]))
        raise ConfigError(f"{place}: {name}: {finding['msg']}".replace(": : ", ": "), "data") from error


_RECORD = TypeAdapter(PromptRecord)
