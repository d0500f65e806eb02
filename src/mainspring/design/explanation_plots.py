"""Plots of an explanation as SVG text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mainspring.design.plots import LIVE, OTHERS, axes_of, svg
from mainspring.evaluation.explain.dependence import Dependence
from mainspring.evaluation.explain.importance import Importance

CURVES = 60
_PALE = "#9fb8ad"


def bars(found: Sequence[Importance], label: str) -> str:
    """A bar for each feature with its interval, the largest on top."""
    figure, axes = axes_of(9.6, 0.8 + 0.24 * len(found))
    places, values = range(len(found)), np.array([one.value for one in found])
    ends = np.abs(np.array([[one.value - one.low, one.high - one.value] for one in found]).T)
    axes.barh(places, values, xerr=np.where(np.isfinite(ends), ends, 0), color=_PALE, ecolor=LIVE, capsize=2)
    axes.set_yticks(places, [one.name for one in found], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return svg(figure)


def partial(one: Dependence, unit: str) -> str:
    """The mean answer at each value with its interval, over the answers of some rows."""
    figure, axes = axes_of(9.6, 3.0)
    ordered = [place for place, value in enumerate(one.values) if value is not None and not one.categories]
    x = [one.values[place] for place in ordered]
    for curve in one.curves[:: max(1, len(one.curves) // CURVES)] if ordered else ():
        axes.plot(x, curve[ordered], color=_PALE, linewidth=0.5, alpha=0.6)
    _draw(axes, one)
    axes.set_ylabel(unit)
    axes.set_xlabel(one.feature)
    return svg(figure)


def accumulated(one: Dependence, unit: str) -> str:
    """What the feature alone adds at each value, with its interval."""
    figure, axes = axes_of(9.6, 2.6)
    axes.axhline(0, color=OTHERS[1], linewidth=0.8)
    _draw(axes, one)
    axes.set_ylabel(f"effect, {unit}")
    axes.set_xlabel(one.feature)
    return svg(figure)


def _draw(axes: Axes, one: Dependence) -> None:
    """A line over numbers with missing beside it; points over categories."""
    line = [place for place, value in enumerate(one.values) if value is not None and not one.categories]
    points = [place for place in range(len(one.values)) if place not in line]
    if line:
        x = [one.values[place] for place in line]
        axes.plot(x, one.effect[line], color=LIVE, linewidth=2.2)
        axes.fill_between(x, one.low[line], one.high[line], color=LIVE, alpha=0.2, linewidth=0)
        axes.plot(x, np.zeros(len(x)), "|", color=OTHERS[1], transform=axes.get_xaxis_transform(), markersize=7)
    if not points:
        return
    at = np.arange(len(points)) if not line else np.array([max(x) + 0.05 * (max(x) - min(x) or 1.0)])
    gaps = np.abs(np.array([one.effect[points] - one.low[points], one.high[points] - one.effect[points]]))
    axes.errorbar(at, one.effect[points], yerr=gaps, fmt="o", color=LIVE if not line else OTHERS[0], capsize=3)
    if line:
        axes.annotate("missing", (at[0], one.effect[points][0]), fontsize=7, textcoords="offset points", xytext=(5, 5))
    else:
        names = ["missing" if one.values[place] is None else str(one.values[place]) for place in points]
        axes.set_xticks(at, names, rotation=45, ha="right", fontsize=8)
