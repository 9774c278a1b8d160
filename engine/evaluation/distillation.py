"""Teacher, distilled models and control models on the same prompts: what a distillation gained, and what of it is the
trajectories' doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np

from engine.evaluation.comparison import Entry, markdown
from engine.evaluation.intervals import Estimate
from engine.evaluation.report import EvalReport
from engine.evaluation.resampling import (
    Bootstrap,
    McNemar,
    Results,
    accuracy,
    forwards,
    mcnemar,
    tokens_per_forward,
)
from engine.evaluation.scoring import Interval, wilson_interval

Role = Literal["teacher", "distilled", "control"]
ROLES: tuple[Role, ...] = get_args(Role)
HEADER = (
    "strategy",
    "model",
    "accuracy",
    "95 % interval",
    "against teacher (points)",
    "McNemar p by seed",
    "NFE",
    "TPF",
    "TPF / teacher's",
    "tokens/s",
)


@dataclass(frozen=True, slots=True)
class ModelRun:
    """A model under every strategy; ``name`` tells it from others of its role."""

    role: Role
    name: str
    entries: tuple[Entry, ...]


class Cell(NamedTuple):
    """The models of one role under one strategy."""

    strategy: str
    role: Role
    reports: tuple[EvalReport, ...]

    @property
    def results(self) -> Results:
        answers = [report.answers for report in self.reports]
        return Results(
            np.array([[float(answer.right) for answer in row] for row in answers]),
            np.array([[float(answer.forwards) for answer in row] for row in answers]),
            np.array([[float(answer.tokens) for answer in row] for row in answers]),
        )

    @property
    def tokens_per_second(self) -> float:
        return float(np.mean([report.tokens_per_second for report in self.reports]))


class Measures(NamedTuple):
    """The numbers of a cell, those against the teacher None for the teacher itself."""

    accuracy: float
    interval: Interval
    difference: Estimate | None
    tests: tuple[McNemar, ...]
    forwards: Estimate
    tpf: Estimate
    speed_up: Estimate | None


class Contrast(NamedTuple):
    """Distilled less control: what the trajectories add to training on the same answers."""

    accuracy: Estimate
    speed_up: Estimate


@dataclass(frozen=True)
class Distillation:
    """Runs over the same prompts and strategies in the same order, one of them the teacher's."""

    runs: tuple[ModelRun, ...]

    def __post_init__(self) -> None:
        assert sum(run.role == "teacher" for run in self.runs) == 1, "there is one teacher"
        questions = {
            tuple(answer.kind for answer in entry.report.answers) for run in self.runs for entry in run.entries
        }
        assert len(questions) == 1, "the models answered different prompts"

    @property
    def num_prompts(self) -> int:
        return len(self.runs[0].entries[0].report.answers)

    @property
    def strategies(self) -> tuple[str, ...]:
        return tuple(entry.label for entry in self.runs[0].entries)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Those that there are, the teacher first."""
        return tuple(role for role in ROLES if any(run.role == role for run in self.runs))

    def cell(self, place: int, role: Role) -> Cell:
        """By the strategy's place."""
        reports = tuple(run.entries[place].report for run in self.runs if run.role == role)
        return Cell(self.strategies[place], role, reports)

    def measure(self, place: int, role: Role) -> Measures:
        """Intervals: Wilson's for a single model's accuracy, else the paired bootstrap over prompts."""
        results, teacher = self.cell(place, role).results, self.cell(place, "teacher").results
        draws = self._draws
        share = draws.estimate(results, accuracy)
        single = len(results.right_SN) == 1
        compared = role != "teacher"
        return Measures(
            accuracy=share.value,
            interval=wilson_interval(int(results.right_SN.sum()), self.num_prompts) if single else share.interval,
            difference=draws.difference(teacher, results, accuracy) if compared else None,
            tests=tuple(mcnemar(teacher.right_SN[0], row_N) for row_N in results.right_SN) if compared else (),
            forwards=draws.estimate(results, forwards),
            tpf=draws.estimate(results, tokens_per_forward),
            speed_up=draws.ratio(teacher, results, tokens_per_forward) if compared else None,
        )

    def contrast(self, place: int) -> Contrast | None:
        """None without both distilled models and a control."""
        if not {"distilled", "control"} <= set(self.roles):
            return None
        control, distilled = self.cell(place, "control").results, self.cell(place, "distilled").results
        return Contrast(
            self._draws.difference(control, distilled, accuracy),
            self._draws.ratio(control, distilled, tokens_per_forward),
        )

    @cached_property
    def _draws(self) -> Bootstrap:
        return Bootstrap(self.num_prompts)

    def rows(self) -> list[tuple[str, ...]]:
        """One row per strategy and role; the columns are :data:`HEADER`."""
        return [self._row(place, role) for place in range(len(self.strategies)) for role in self.roles]

    def contrast_rows(self) -> list[tuple[str, ...]]:
        """Distilled against control by strategy, with a heading row; only the heading where one is missing."""
        heading = ("strategy", "distilled less control (points)", "TPF distilled / control")
        found = [(label, self.contrast(place)) for place, label in enumerate(self.strategies)]
        body = [(label, _points(each.accuracy), _times(each.speed_up)) for label, each in found if each is not None]
        return [heading, *body]

    def to_markdown(self) -> str:
        """A page: what was compared, the table, and the contrast with the control."""
        names = "; ".join(f"{role}: {', '.join(self._names(role))}" for role in self.roles)
        parts = [
            f"{self.num_prompts} held-out prompts, the same for every model. {names}. Numbers of several models are "
            "means; intervals (95 %) are over prompts.",
            markdown([HEADER, *self.rows()]),
        ]
        contrast = self.contrast_rows()
        if len(contrast) > 1:
            parts.append(markdown(contrast))
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, object]:
        """Everything as JSON values, with each model's own report."""
        return {
            "prompts": self.num_prompts,
            "strategies": [self._strategy_dict(place) for place in range(len(self.strategies))],
            "models": [
                {
                    "role": run.role,
                    "name": run.name,
                    "reports": {entry.label: entry.report.to_dict() for entry in run.entries},
                }
                for run in self.runs
            ],
        }

    def _names(self, role: Role) -> list[str]:
        return [run.name for run in self.runs if run.role == role]

    def _row(self, place: int, role: Role) -> tuple[str, ...]:
        cell, found = self.cell(place, role), self.measure(place, role)
        low, high = found.interval
        return (
            cell.strategy,
            role if len(cell.reports) == 1 else f"{role} ({len(cell.reports)})",
            f"{found.accuracy:.1%}",
            f"{low:.1%} - {high:.1%}",
            _points(found.difference) if found.difference else "",
            ", ".join(f"{test.p_value:.2g}" for test in found.tests),
            f"{found.forwards.value:.1f}",
            f"{found.tpf.value:.2f}",
            _times(found.speed_up) if found.speed_up else "",
            f"{cell.tokens_per_second:.0f}",
        )

    def _strategy_dict(self, place: int) -> dict[str, object]:
        contrast = self.contrast(place)
        return {
            "strategy": self.strategies[place],
            "roles": {role: self._measures_dict(place, role) for role in self.roles},
            "distilled_against_control": contrast
            and {"accuracy": contrast.accuracy.to_dict(), "tpf_ratio": contrast.speed_up.to_dict()},
        }

    def _measures_dict(self, place: int, role: Role) -> Mapping[str, object]:
        found = self.measure(place, role)
        against: dict[str, object] = {}
        if found.difference and found.speed_up:
            against = {
                "accuracy_difference": found.difference.to_dict(),
                "tpf_ratio": found.speed_up.to_dict(),
                "mcnemar": [test._asdict() for test in found.tests],
            }
        return {
            "accuracy": Estimate(found.accuracy, found.interval).to_dict(),
            "nfe": found.forwards.to_dict(),
            "tpf": found.tpf.to_dict(),
            "tokens_per_second": round(self.cell(place, role).tokens_per_second, 1),
            **against,
        }


def _points(difference: Estimate) -> str:
    low, high = difference.interval
    return f"{100 * difference.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _times(ratio: Estimate) -> str:
    low, high = ratio.interval
    return f"{ratio.value:.2f} ({low:.2f} to {high:.2f})"
