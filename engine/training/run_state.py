"""Where a stopped training goes on: a folder beside its output, and what must be equal to go on with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import cast

from engine.errors import ConfigError
from engine.training.backend import Backend
from engine.training.feed import Feed
from engine.training.job import Job
from engine.training.schedule import Schedule
from engine.training.storage import recover, replacing
from engine.training.world import World
from engine.training.zero import ZeroSettings

FORMAT = 1
SMALL_FILES = 2**20
"""Bytes of a state beside weights and optimiser: waiting rows, places, about."""
MAX_DIFFERENCES = 4
Plain = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RunState:
    """What a training is made of, besides the model. Its methods are collective."""

    folder: Path
    identity: Plain
    backend: Backend
    feed: Feed
    schedule: Schedule
    world: World

    def save(self) -> None:
        """Replace the folder by the present state; ConfigError where the disk is full."""
        with replacing(self.folder, self.backend.state_bytes + SMALL_FILES, self.world) as staging:
            self.backend.save(staging)
            self.feed.save(staging)
            if self.world.is_first:
                place = {
                    "format": FORMAT,
                    "step": self.schedule.step,
                    "fraction": self.schedule.fraction,
                    "elapsed_s": self.schedule.elapsed_s,
                    "identity": self.identity,
                }
                (staging / "state.json").write_text(json.dumps(place, indent=1) + "\n")

    def restore(self) -> None:
        """Go on from the folder. ConfigError where there is none, or it is another training's."""
        if self.world.is_first:
            recover(self.folder)
        self.world.wait()
        place = read_place(self.folder)
        refuse_other(self.folder, cast(Plain, place["identity"]), self.identity)
        self.backend.restore(self.folder)
        self.feed.restore(self.folder)
        self.schedule.restore(cast(int, place["step"]), cast(float, place["fraction"]), cast(float, place["elapsed_s"]))


def read_place(folder: Path) -> Plain:
    """``state.json`` of a state folder."""
    if not (folder / "state.json").is_file():
        raise ConfigError(
            f"There is nothing to resume: {folder} does not exist (it is removed when a training is finished). "
            "Leave out --resume to begin.",
            "resume",
        )
    place: Plain = json.loads((folder / "state.json").read_text())
    if place["format"] != FORMAT:
        raise ConfigError(f"{folder} was written by another version of Lacuna (format {place['format']}).", "resume")
    return place


def refuse_other(folder: Path, then: Plain, now: Plain) -> None:
    """ConfigError that says in what two identities differ."""
    differences = list(_differences(then, now))
    if differences:
        more = f" and {len(differences) - MAX_DIFFERENCES} more" if len(differences) > MAX_DIFFERENCES else ""
        raise ConfigError(
            f"{folder} is the state of another training: {'; '.join(differences[:MAX_DIFFERENCES])}{more}. Resume with "
            "the options of then, or choose another --output.",
            "resume",
        )


def identity(job: Job, seed: int, accumulate: int, processes: int, zero: ZeroSettings | None) -> dict[str, object]:
    """All that decides the course of a training, as JSON values."""
    facts = {
        "name": job.name,
        "record": job.record,
        "model": asdict(job.model.spec),
        "seed": seed,
        "budget": asdict(job.budget),
        "curriculum": {field.name: repr(getattr(job.curriculum, field.name)) for field in fields(job.curriculum)},
        "optimisation": asdict(job.optimisation),
        "tokens_per_step": job.tokens_per_step,
        "row_lengths": job.row_lengths,
        "packed": job.packed,
        "router_balance": job.router_balance,
        "accumulate": accumulate,
        "processes": processes,
        "zero": None if zero is None else asdict(zero),
    }
    plain: dict[str, object] = json.loads(json.dumps(facts, default=_plain))
    return plain


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else str(value)


def _differences(then: object, now: object, path: str = "") -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted({*then, *now}):
            yield from _differences(then.get(name), now.get(name), f"{path}.{name}".lstrip("."))
    elif then != now:
        yield f"{path} was {_short(then)} and is {_short(now)}"


def _short(value: object, limit: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "..."
