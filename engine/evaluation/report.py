"""Result of an evaluation: accuracy with its interval, forwards, tokens per forward and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.evaluation.intervals import Estimate, finite, mean_share, pass_at, ratio
from engine.evaluation.scoring import Interval

HEADER = ("kind", "right", "accuracy", "95 % interval", "forwards", "TPF")
TOTAL = "all"
PASS_AT = (1, 10, 100)
"""The k of pass@k that are usual (Chen et al. 2021)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one prompt. ``tokens`` are completion tokens, without the end-of-text token; ``forwards`` passes
    of the network (NFE), ``positions`` the query positions fed to it. ``name`` is the question's, ``reason`` why the
    ``text`` is not right."""

    kind: str
    right: bool
    forwards: int
    tokens: int
    positions: int
    name: str = ""
    text: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KindResult:
    """The answers of one kind, at least one; those to the same prompt, ``num_samples`` of them, are neighbours."""

    kind: str
    answers: tuple[Answer, ...]
    num_samples: int = 1

    @property
    def right(self) -> int:
        return sum(answer.right for answer in self.answers)

    @property
    def total(self) -> int:
        return len(self.answers)

    @property
    def right_by_prompt(self) -> tuple[int, ...]:
        """Right answers to each prompt."""
        starts = range(0, self.total, self.num_samples)
        return tuple(sum(one.right for one in self.answers[start : start + self.num_samples]) for start in starts)

    @property
    def accuracy(self) -> float:
        """Share of right answers, which is pass@1."""
        return self.right / self.total

    @property
    def interval(self) -> Interval:
        """Of the accuracy; prompts are independent, answers to one prompt are not."""
        return self.pass_at(1).interval

    def pass_at(self, k: int) -> Estimate:
        """pass@k, without bias, for k up to the number of samples: how often one of k answers is right."""
        return mean_share([pass_at(k, right, self.num_samples) for right in self.right_by_prompt])

    @property
    def passes(self) -> dict[int, Estimate]:
        """pass@k for the usual k that the samples allow, and for all of them."""
        return {k: self.pass_at(k) for k in pass_ks(self.num_samples)}

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)

    @property
    def mean_forwards(self) -> float:
        """NFE: forwards per prompt."""
        return sum(answer.forwards for answer in self.answers) / self.total

    @property
    def tokens_per_forward(self) -> float:
        return self.tpf.value

    @property
    def tpf(self) -> Estimate:
        """Tokens per forward with its interval."""
        return ratio([answer.tokens for answer in self.answers], [answer.forwards for answer in self.answers])

    @property
    def positions_per_token(self) -> float:
        """Query positions computed for each token of the answers; infinite when all answers are empty."""
        positions = sum(answer.positions for answer in self.answers)
        return positions / self.tokens if self.tokens else float("inf")

    def to_dict(self) -> dict[str, object]:
        return {
            "right": self.right,
            "total": self.total,
            "accuracy": round(self.accuracy, 4),
            "interval": [round(bound, 4) for bound in self.interval],
            "nfe": round(self.mean_forwards, 2),
            "tokens_per_forward": round(self.tokens_per_forward, 3),
            "tokens_per_forward_interval": finite(self.tpf.interval),
            "positions_per_token": finite([self.positions_per_token])[0],
            "pass_at": {str(k): estimate.to_dict() for k, estimate in self.passes.items()},
        }


@dataclass(frozen=True, slots=True)
class EvalReport:
    """Every answer under one strategy, in the order of the prompts, ``num_samples`` to each; ``seconds`` is the
    wall-clock time of the generation."""

    strategy: dict[str, object]
    answers: tuple[Answer, ...]
    seconds: float
    num_samples: int = 1

    @property
    def kinds(self) -> tuple[KindResult, ...]:
        """Kind by kind, in the order of first appearance."""
        names = dict.fromkeys(answer.kind for answer in self.answers)
        return tuple(
            KindResult(name, tuple(one for one in self.answers if one.kind == name), self.num_samples) for name in names
        )

    @property
    def overall(self) -> KindResult:
        """All kinds together."""
        return KindResult(TOTAL, self.answers, self.num_samples)

    @property
    def tokens_per_second(self) -> float:
        return self.overall.tokens / self.seconds if self.seconds else 0.0

    @property
    def header(self) -> tuple[str, ...]:
        """Columns of the table; pass@k beyond pass@1, which is the accuracy, where there are several samples."""
        return (*HEADER, *(f"pass@{k}" for k in pass_ks(self.num_samples)[1:]))

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of the table, one row per kind and one for all."""
        results = (*self.kinds, self.overall)
        return [
            (
                result.kind,
                f"{result.right}/{result.total}",
                f"{result.accuracy:.1%}",
                f"{result.interval.low:.1%} - {result.interval.high:.1%}",
                f"{result.mean_forwards:.1f}",
                f"{result.tokens_per_forward:.2f}",
                *(percent(result.passes[k]) for k in pass_ks(self.num_samples)[1:]),
            )
            for result in results
        ]

    def to_table(self) -> str:
        """The table as text of fixed width."""
        return f"{fixed_width([self.header, *self.rows()])}\n{self.tokens_per_second:.0f} tokens/s"

    def to_dict(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "strategy": self.strategy,
            "kinds": {kind.kind: kind.to_dict() for kind in self.kinds},
            "overall": self.overall.to_dict(),
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "samples": self.num_samples,
        }


def pass_ks(num_samples: int) -> tuple[int, ...]:
    """The k that so many samples of each prompt can speak for, in order; the first is 1."""
    return tuple(sorted({k for k in PASS_AT if k < num_samples} | {num_samples, 1}))


def percent(estimate: Estimate) -> str:
    """A share with its interval."""
    return f"{estimate.value:.1%} ({estimate.interval.low:.1%} - {estimate.interval.high:.1%})"


def fixed_width(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines, right-aligned in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
