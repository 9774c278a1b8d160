"""Result of an evaluation: accuracy with its interval, forwards, tokens per forward and speed."""

from __future__ import annotations

from dataclasses import dataclass

from engine.evaluation.scoring import Interval, wilson_interval

HEADER = ("kind", "right", "accuracy", "95 % interval", "forwards", "TPF")
TOTAL = "all"


@dataclass(frozen=True, slots=True)
class KindResult:
    """Counts over the prompts of one kind. ``tokens`` are completion tokens, without the end-of-text token."""

    kind: str
    right: int
    total: int
    forwards: int
    tokens: int

    @property
    def accuracy(self) -> float:
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> Interval:
        return wilson_interval(self.right, self.total)

    @property
    def mean_forwards(self) -> float:
        """NFE: forwards per prompt."""
        return self.forwards / self.total if self.total else 0.0

    @property
    def tokens_per_forward(self) -> float:
        return self.tokens / self.forwards if self.forwards else 0.0

    def to_dict(self) -> dict[str, object]:
        return {
            "right": self.right,
            "total": self.total,
            "accuracy": round(self.accuracy, 4),
            "interval": [round(bound, 4) for bound in self.interval],
            "nfe": round(self.mean_forwards, 2),
            "tokens_per_forward": round(self.tokens_per_forward, 3),
        }


@dataclass(frozen=True, slots=True)
class EvalReport:
    """All kinds under one strategy; ``seconds`` is the wall-clock time of the generation."""

    strategy: dict[str, object]
    kinds: tuple[KindResult, ...]
    seconds: float

    @property
    def overall(self) -> KindResult:
        """Counts of all kinds together."""
        return KindResult(
            TOTAL,
            sum(kind.right for kind in self.kinds),
            sum(kind.total for kind in self.kinds),
            sum(kind.forwards for kind in self.kinds),
            sum(kind.tokens for kind in self.kinds),
        )

    @property
    def tokens_per_second(self) -> float:
        return self.overall.tokens / self.seconds if self.seconds else 0.0

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of the table, one row per kind and one for all; the columns are :data:`HEADER`."""
        results = (*self.kinds, self.overall)
        return [
            (
                result.kind,
                f"{result.right}/{result.total}",
                f"{result.accuracy:.1%}",
                f"{result.interval.low:.1%} - {result.interval.high:.1%}",
                f"{result.mean_forwards:.1f}",
                f"{result.tokens_per_forward:.2f}",
            )
            for result in results
        ]

    def to_table(self) -> str:
        """The table as text of fixed width."""
        cells = [HEADER, *self.rows()]
        widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([*lines, f"{self.tokens_per_second:.0f} tokens/s"])

    def to_dict(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "strategy": self.strategy,
            "kinds": {kind.kind: kind.to_dict() for kind in self.kinds},
            "overall": self.overall.to_dict(),
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
        }
