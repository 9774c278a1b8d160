"""Trajectories: prompts that the model has decoded itself, with the step at which it filled each position.

A file of them is JSON lines: a heading that says how they were made, then one line per attempt, right or not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from engine.errors import ConfigError
from engine.training.data import EncodedSample

RIGHT = "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What a collection was asked for. ``strategy`` holds the options that :func:`parse_strategy` reads, ``verifier``
    the name of the rule that marked the answers; ``questions`` says where they are from."""

    model: str
    questions: str
    num_prompts: int
    samples_per_prompt: int
    strategy: Mapping[str, object]
    block_length: int
    verifier: str
    temperature: float
    max_tokens: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One decoding. ``canvas_ids`` and ``revealed_at`` are those of a CanvasStep at the end, of which the first
    ``answer_len`` tokens are the answer with its stop id. ``verdict`` is "right", or says why it is not used."""

    index: int
    kind: str
    seed: int
    verdict: str
    prompt_ids: Sequence[int]
    canvas_ids: Sequence[int]
    revealed_at: Sequence[int]
    answer_len: int

    @property
    def num_rounds(self) -> int:
        """Steps that filled something."""
        return len(set(self.revealed_at) - {0})

    def sample(self) -> EncodedSample:
        """For training."""
        return EncodedSample(
            prompt=list(self.prompt_ids),
            answer=list(self.canvas_ids[: self.answer_len]),
            canvas=tuple(self.canvas_ids),
            revealed_at=tuple(self.revealed_at),
        )


class Collection(NamedTuple):
    """A file's content."""

    heading: Heading
    attempts: list[Attempt]

    @property
    def accepted(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.verdict == RIGHT]


def tally(attempts: Iterable[Attempt]) -> dict[str, Counter[str]]:
    """Verdicts by kind of question."""
    counts: dict[str, Counter[str]] = {}
    for attempt in attempts:
        counts.setdefault(attempt.kind, Counter())[attempt.verdict] += 1
    return counts


def read_collection(path: Path) -> Collection:
    """A last line that a broken-off run left unfinished is passed over; ConfigError for anything else amiss."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The trajectories {path} cannot be read: {error}.", "trajectories") from error
    complete = lines[:-1]
    if not complete:
        raise ConfigError(f"The trajectories {path} have no lines.", "trajectories")
    try:
        heading = Heading(**json.loads(complete[0]))
    except (ValueError, TypeError) as error:
        message = f"{path}, line 1 is not the heading of a file of trajectories: {error}"
        raise ConfigError(message, "trajectories") from error
    return Collection(heading, list(_attempts(path, complete[1:])))


def is_complete(path: Path) -> bool:
    """Whether the file is there and holds all attempts that its heading announces."""
    if not path.exists():
        return False
    content = path.read_bytes()
    lines = content.count(b"\n")
    if not lines:
        return False
    heading = Heading(**json.loads(content[: content.index(b"\n")]))
    return lines - 1 >= heading.num_prompts * heading.samples_per_prompt


def _attempts(path: Path, lines: Sequence[str]) -> Iterator[Attempt]:
    for number, line in enumerate(lines, 2):
        try:
            attempt = Attempt(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}, line {number} is not a trajectory: {error}", "trajectories") from error
        if not 0 <= attempt.answer_len <= len(attempt.canvas_ids) == len(attempt.revealed_at):
            message = f"{path}, line {number}: canvas_ids, revealed_at and answer_len do not go together"
            raise ConfigError(message, "trajectories")
        yield attempt


class CollectionWriter:
    """Owns a file while attempts are added. A file with the same heading is gone on with, another one is refused."""

    def __init__(self, path: Path, heading: Heading) -> None:
        self._path = path
        self.attempts: list[Attempt] = []
        if path.exists():
            self._go_on(heading)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_line(heading), encoding="utf-8")

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Append; the file is complete up to here whatever happens afterwards."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, attempts)))
        self.attempts += attempts

    def _go_on(self, heading: Heading) -> None:
        found = read_collection(self._path)
        for name, wanted in asdict(heading).items():
            stored = getattr(found.heading, name)
            if stored != wanted:
                message = (
                    f"{self._path} was collected with {name} = {stored!r}, not {wanted!r}; name another output, or use "
                    "it as it is with --trajectories"
                )
                raise ConfigError(message, name)
        self.attempts = found.attempts
        text = "".join([_line(heading), *map(_line, self.attempts)])
        staging = self._path.with_name(self._path.name + ".new")
        staging.write_text(text, encoding="utf-8")
        staging.replace(self._path)


def _line(record: Heading | Attempt) -> str:
    return json.dumps(asdict(record)) + "\n"
