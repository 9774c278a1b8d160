"""Several strategies on the same prompts: the table of speed against quality, with paired differences to the first."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from engine.evaluation.intervals import Estimate, paired_means, paired_proportions
from engine.evaluation.report import EvalReport, KindResult, fixed_width, pass_ks, percent
from engine.evaluation.scoring import Interval

HEADER = ("strategy", "accuracy", "95 % interval", "against the first", "NFE", "TPF", "positions/token", "tokens/s")


@dataclass(frozen=True, slots=True)
class Entry:
    """One strategy; ``label`` is how the user wrote it."""

    label: str
    report: EvalReport


@dataclass(frozen=True, slots=True)
class Comparison:
    """Strategies of one model: at least one entry, all over the same prompts in the same order. The first is the one to
    compare with."""

    model: str
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        kinds = {
            (entry.report.num_samples, *(answer.kind for answer in entry.report.answers)) for entry in self.entries
        }
        assert len(kinds) == 1, "the strategies answered different prompts"

    @property
    def num_prompts(self) -> int:
        return len(self.entries[0].report.answers) // self.num_samples

    @property
    def num_samples(self) -> int:
        return self.entries[0].report.num_samples

    @property
    def header(self) -> tuple[str, ...]:
        """Columns of the first table; pass@k beyond pass@1 where there are several samples."""
        return (*HEADER, *(f"pass@{k}" for k in pass_ks(self.num_samples)[1:]))

    def accuracy_difference(self, entry: Entry) -> Estimate:
        """Accuracy less that of the first strategy, paired by prompt."""
        first, second = (one.report.overall.right_by_prompt for one in (self.entries[0], entry))
        if self.num_samples == 1:
            return paired_proportions([right > 0 for right in first], [right > 0 for right in second])
        return paired_means(*([right / self.num_samples for right in side] for side in (first, second)))

    def forwards_difference(self, entry: Entry) -> Estimate:
        """Forwards per answer less those of the first strategy, paired by prompt."""
        return paired_means(
            [answer.forwards for answer in self.entries[0].report.answers],
            [answer.forwards for answer in entry.report.answers],
        )

    def pareto_front(self) -> tuple[Entry, ...]:
        """Entries that no other beats in accuracy without losing tokens per forward or the reverse; slowest first."""
        front: list[Entry] = []
        for entry in sorted(self.entries, key=lambda one: _place(one.report.overall), reverse=True):
            if not front or entry.report.overall.accuracy > front[-1].report.overall.accuracy:
                front.append(entry)
        return tuple(reversed(front))

    def to_table(self) -> str:
        """Two tables of fixed width: speed and quality of each strategy, and accuracy by kind."""
        return f"{fixed_width([self.header, *self.rows()])}\n\n{fixed_width(self.kind_rows())}"

    def to_markdown(self) -> str:
        """The two tables for a page."""
        return f"{markdown([self.header, *self.rows()])}\n\n{markdown(self.kind_rows())}"

    def rows(self) -> list[tuple[str, ...]]:
        """One row per strategy."""
        return [self._row(place, entry) for place, entry in enumerate(self.entries)]

    def kind_rows(self) -> list[tuple[str, ...]]:
        """Accuracy in per cent by kind, with a heading row."""
        heading = ("strategy", *(kind.kind for kind in self.entries[0].report.kinds))
        cells = [[f"{kind.accuracy:.0%}" for kind in entry.report.kinds] for entry in self.entries]
        return [heading, *((entry.label, *row) for entry, row in zip(self.entries, cells, strict=True))]

    def to_dict(self) -> dict[str, object]:
        """Everything as JSON values."""
        return {
            "model": self.model,
            "prompts": self.num_prompts,
            "samples": self.num_samples,
            "strategies": [self._entry_dict(entry) for entry in self.entries],
            "pareto_front": [entry.label for entry in self.pareto_front()],
        }

    def answers(self) -> Iterator[dict[str, object]]:
        """Every answer of every strategy as JSON values; ``prompt`` counts from 0."""
        for entry in self.entries:
            for place, answer in enumerate(entry.report.answers):
                yield {"strategy": entry.label, "prompt": place // self.num_samples, **asdict(answer)}

    def to_csv(self) -> str:
        """One line per strategy, plain numbers, one column of accuracy per kind."""
        text = io.StringIO()
        rows = [self._flat(entry) for entry in self.entries]
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _row(self, place: int, entry: Entry) -> tuple[str, ...]:
        overall = entry.report.overall
        return (
            entry.label,
            f"{overall.accuracy:.1%}",
            f"{overall.interval.low:.1%} - {overall.interval.high:.1%}",
            _points(self.accuracy_difference(entry)) if place else "",
            f"{overall.mean_forwards:.1f}",
            f"{overall.tokens_per_forward:.2f}",
            f"{overall.positions_per_token:.1f}",
            f"{entry.report.tokens_per_second:.0f}",
            *(percent(overall.passes[k]) for k in pass_ks(self.num_samples)[1:]),
        )

    def _entry_dict(self, entry: Entry) -> dict[str, object]:
        differences = {
            "accuracy": self.accuracy_difference(entry).to_dict(),
            "nfe": self.forwards_difference(entry).to_dict(),
        }
        return {"label": entry.label, **entry.report.to_dict(), "difference_to_first": differences}

    def _flat(self, entry: Entry) -> dict[str, object]:
        overall, difference = entry.report.overall, self.accuracy_difference(entry)
        return {
            "strategy": entry.label,
            "prompts": overall.total,
            "accuracy": round(overall.accuracy, 4),
            **_bounds("accuracy", overall.interval),
            "accuracy_difference": round(difference.value, 4),
            **_bounds("accuracy_difference", difference.interval),
            "nfe": round(overall.mean_forwards, 4),
            "tokens_per_forward": round(overall.tokens_per_forward, 4),
            **_bounds("tokens_per_forward", overall.tpf.interval),
            "positions_per_token": round(overall.positions_per_token, 4),
            "tokens_per_second": round(entry.report.tokens_per_second, 2),
            **{f"accuracy_{kind.kind}": round(kind.accuracy, 4) for kind in entry.report.kinds},
            **self._flat_passes(overall),
        }

    def _flat_passes(self, overall: KindResult) -> dict[str, object]:
        """pass@k beyond pass@1."""
        columns: dict[str, object] = {}
        for k in pass_ks(self.num_samples)[1:]:
            columns |= {
                f"pass_at_{k}": round(overall.passes[k].value, 4),
                **_bounds(f"pass_at_{k}", overall.passes[k].interval),
            }
        return columns


def _place(result: KindResult) -> tuple[float, float]:
    return result.tokens_per_forward, result.accuracy


def _points(difference: Estimate) -> str:
    """In percentage points."""
    low, high = difference.interval
    return f"{100 * difference.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _bounds(name: str, interval: Interval) -> dict[str, float]:
    return {f"{name}_low": round(interval.low, 4), f"{name}_high": round(interval.high, 4)}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table for a page; the first row is its heading."""
    heading, *body = (f"| {' | '.join(row)} |" for row in rows)
    rule = "| --- |" + " ---: |" * (len(rows[0]) - 1)
    return "\n".join([heading, rule, *body])
