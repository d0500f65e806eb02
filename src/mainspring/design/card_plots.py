"""Plots of a model's card as SVG text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mainspring.design.plots import GRID, INK, LIVE, OTHERS, new_axes, to_svg
from mainspring.evaluation.record import Evaluation

MOST = 24
WIDTH = 10.8
BAD, WARM = "#b00020", "#c9a227"
Ends = tuple[float | None, float | None]


def against(evaluation: Evaluation) -> str:
    """The ratio of losses to each rival's with its interval; left of 1 is better."""
    shown = [one for one in evaluation.against if one.ratio is not None]
    if not shown:
        return ""
    figure, axes = new_axes(WIDTH, 0.9 + 0.34 * len(shown))
    axes.axvline(1, color=BAD, linewidth=1.2, linestyle=":")
    colours = [LIVE if one.high is not None and one.high < 1 else WARM if one.low is None or one.low <= 1 else BAD for one in shown]
    names, values = [one.rival.replace("_", " ") for one in shown], [one.ratio or 0.0 for one in shown]
    _intervals(axes, names, values, [(one.low, one.high) for one in shown], colours)
    axes.set_xlabel(f"{evaluation.own_loss.label} over that of the rival; left of 1 is better")
    return to_svg(figure)


def slices(evaluation: Evaluation) -> str:
    """The comparison loss of the worst declared slices with intervals; the line is that of all rows."""
    shown = [(one, one.measures[0]) for one in evaluation.slices[:MOST]]
    if not shown:
        return ""
    figure, axes = new_axes(WIDTH, 0.9 + 0.26 * len(shown))
    overall = evaluation.own_loss.value or 0.0
    axes.axvline(overall, color=INK, linewidth=1.2, linestyle=":", label="all rows")
    colours = [BAD if loss.low is not None and loss.low > overall else "#52606d" for _, loss in shown]
    names, values = [f"{one.name}  ({one.rows:,})" for one, _ in shown], [loss.value or 0.0 for _, loss in shown]
    _intervals(axes, names, values, [(loss.low, loss.high) for _, loss in shown], colours)
    axes.set_xlabel(evaluation.own_loss.label)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return to_svg(figure)


def calibration(evaluation: Evaluation) -> str:
    """What came against what was said, in steps, and the line on which they are equal; of numbers what came less what was said."""
    steps, numbers = evaluation.calibration, evaluation.task == "regression"
    if not steps:
        return ""
    figure, axes = new_axes(WIDTH, 2.8) if numbers else new_axes(5.4, 4.4)
    said = [one.predicted for one in steps]
    came = [one.came - one.predicted * numbers for one in steps]
    ends = [*said, *(end for one in steps for end in (one.came, one.low, one.high) if end is not None)]
    line = [0.0, 0.0] if numbers else [min(ends), max(ends)]
    axes.plot([min(said), max(said)] if numbers else line, line, color=INK, linewidth=1, linestyle=":")
    below = [0.0 if one.low is None else max(one.came - one.low, 0.0) for one in steps]
    above = [0.0 if one.high is None else max(one.high - one.came, 0.0) for one in steps]
    axes.errorbar(said, came, yerr=[below, above], fmt="o-", color=LIVE, ecolor="#9fb8ad", elinewidth=2.5, markersize=5, linewidth=1)
    axes.set_xlabel("said")
    axes.set_ylabel("came less said" if numbers else "came")
    return to_svg(figure)


def thresholds(evaluation: Evaluation) -> str:
    """Precision and recall by the share of rows with an alert, and what a row costs, where costs are declared."""
    curve = evaluation.thresholds
    if not curve:
        return ""
    figure, axes = new_axes(WIDTH, 3.4)
    rates = [one.alert_rate for one in curve]
    for values, colour, label in (
        ([one.precision for one in curve], LIVE, "precision"),
        ([one.recall for one in curve], OTHERS[2], "recall"),
    ):
        axes.plot(rates, _numbers(values), color=colour, linewidth=2, label=label)
    axes.set_xlabel("share of rows with an alert")
    axes.set_ylim(0, 1.02)
    if evaluation.best is not None:
        cost = axes.twinx()
        cost.plot(rates, _numbers([one.cost for one in curve]), color=OTHERS[0], linewidth=2, label="cost of a row (right)")
        cost.spines[["top", "left"]].set_visible(False)
        cost.spines["right"].set_color(GRID)
        chosen = min(curve, key=lambda one: abs(one.threshold - (evaluation.best.threshold if evaluation.best else 0.0)))
        axes.axvline(chosen.alert_rate, color=INK, linewidth=1, linestyle=":", label="cheapest")
        lines, labels = (a + b for a, b in zip(axes.get_legend_handles_labels(), cost.get_legend_handles_labels(), strict=True))
        axes.legend(lines, labels, frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    else:
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return to_svg(figure)


def inputs(evaluation: Evaluation) -> str:
    """The share of the most important columns in all importance."""
    told = [(one.name, one.importance) for one in evaluation.inputs if one.importance is not None][:MOST]
    whole = sum(one.importance or 0.0 for one in evaluation.inputs)
    if not told or not whole:
        return ""
    figure, axes = new_axes(WIDTH, 0.6 + 0.22 * len(told))
    axes.barh(range(len(told)), [value / whole for _, value in told], color="#9fb8ad", height=0.7)
    axes.set_yticks(range(len(told)), [name for name, _ in told], fontsize=8)
    axes.set_ylim(len(told) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return to_svg(figure)


def _intervals(axes: Axes, names: Sequence[str], values: Sequence[float], ends: Sequence[Ends], colours: Sequence[str]) -> None:
    """A line and a dot a row, the first at the top; an open end is left out."""
    for place, (value, (low, high), colour) in enumerate(zip(values, ends, colours, strict=True)):
        axes.plot([value if low is None else low, value if high is None else high], [place] * 2, color=colour, linewidth=2.5, alpha=0.45)
        axes.plot([value], [place], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(color=GRID, axis="x")


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]


DRAWINGS = {"against": against, "slices": slices, "calibration": calibration, "thresholds": thresholds, "inputs": inputs}
"""What draws the picture that a section of a card names."""
