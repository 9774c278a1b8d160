"""The picture of a distillation. Only this module and ``plot.py`` need matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.evaluation.distillation import Distillation, Role

LOOKS: dict[Role, tuple[str, str]] = {"teacher": ("0.35", "s"), "distilled": ("C0", "o"), "control": ("C1", "^")}


def write_distillation_plot(found: Distillation, path: Path) -> None:
    """An SVG; text stays text, and equal results give equal files."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lacuna", "text.parse_math": False, "font.size": 9}):
        draw(found).savefig(path, metadata={"Date": None})


def draw(found: Distillation) -> Figure:
    """A line per role through its strategies, accuracy against tokens per forward with 95 % intervals; faint points are
    single models."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for role in found.roles:
        _line(axes, found, role)
    axes.set_xlabel("tokens per forward (TPF)")
    axes.set_ylabel("exact match, %")
    axes.set_title(f"{found.num_prompts} held-out prompts; numbers: {_legend(found)}", fontsize=8)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _line(axes: Axes, found: Distillation, role: Role) -> None:
    colour, marker = LOOKS[role]
    places = range(len(found.strategies))
    measured = [found.measure(place, role) for place in places]
    x, y = [each.tpf.value for each in measured], [100 * each.accuracy for each in measured]
    axes.errorbar(
        x,
        y,
        xerr=[
            [max(0.0, abs(each.tpf.value - bound)) for each in measured for bound in [each.tpf.interval[side]]]
            for side in (0, 1)
        ],
        yerr=[
            [max(0.0, abs(each.accuracy - bound) * 100) for each in measured for bound in [each.interval[side]]]
            for side in (0, 1)
        ],
        color=colour,
        marker=marker,
        linewidth=1,
        elinewidth=0.8,
        label=role,
    )
    for place in places:
        axes.annotate(str(place + 1), (x[place], y[place]), xytext=(4, 4), textcoords="offset points")
        single = [report.overall for report in found.cell(place, role).reports]
        if len(single) > 1:
            axes.scatter(
                [one.tokens_per_forward for one in single],
                [100 * one.accuracy for one in single],
                s=8,
                alpha=0.5,
                color=colour,
            )


def _legend(found: Distillation) -> str:
    return ", ".join(f"{place} {label}" for place, label in enumerate(found.strategies, 1))
