"""What the router knows of work beside :mod:`engine.work`: shapes of requests that were not checked yet, and how fast a
replica works. Plain arithmetic, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engine.work import DEFAULT_LOOK, WorkShape

CHARS_PER_TOKEN = 3


@dataclass(slots=True)
class RateMeter:
    """Positions per second of a replica while it works, forgetting what is older than about a minute of work.

    It starts from ``prior`` as if that had been seen for one second.
    """

    prior: float = 2000.0
    memory_s: float = 60.0
    busy_s: float = 1.0
    positions: float = field(init=False)

    def __post_init__(self) -> None:
        self.positions = self.prior * self.busy_s

    @property
    def per_s(self) -> float:
        return self.positions / self.busy_s

    def worked(self, seconds: float) -> None:
        """The replica had something to do for so long."""
        kept = max(1.0 - seconds / self.memory_s, 0.0)
        self.positions *= kept
        self.busy_s = self.busy_s * kept + seconds

    def finished(self, positions: float) -> None:
        """A sequence that took so many positions has left."""
        self.positions += positions


def shape_of(
    strategy: Mapping[str, object], default: Mapping[str, object], prompt_tokens: int, max_tokens: int
) -> WorkShape:
    """The shape of a sequence whose options were not checked yet: what makes no sense counts as not given."""
    options = {**default, **strategy}
    block = options.get("block_length")
    cache = options.get("cache")
    named = {key: str(options[key])[:64] for key in sorted(options)[:32]}
    return WorkShape(
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        block_length=block if isinstance(block, int) and block > 0 else DEFAULT_LOOK,
        cache=cache if isinstance(cache, str) else "none",
        strategy=str(named),
    )


def scaled(shape: WorkShape, left: int) -> WorkShape:
    """The shape of what is left of a sequence: its finished tokens became prompt."""
    left = max(min(left, shape.max_tokens), 1)
    return replace(shape, prompt_tokens=shape.prompt_tokens + shape.max_tokens - left, max_tokens=left)
