"""Plots of a report as SVG text, drawn by matplotlib without its global state."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, date2num
from matplotlib.figure import Figure

from mainspring.clock import to_datetime
from mainspring.design.report import Report

INK, GRID, LIVE = "#1f2933", "#e4e7eb", "#0b6e4f"
OTHERS = ("#c44900", "#7b6d8d", "#4a7fb5", "#a0a83a")
MARKS = {"promote": ("#0b6e4f", "promoted"), "roll_back": ("#b00020", "rolled back"), "trigger": ("#c9a227", "retrained")}
_STYLE: Any = {"svg.hashsalt": "mainspring", "svg.fonttype": "path", "font.size": 9, "axes.edgecolor": GRID, "text.color": INK}


def error_over_time(report: Report) -> str:
    """Daily error of the live system and the baselines, with retrainings, promotions and rollbacks marked."""
    if not report.daily:
        return ""
    figure, axes = axes_of(9.6, 3.4)
    days = [_number(at) for at, _ in report.daily]
    for number, name in enumerate(report.daily[0][1]):
        live = number == 0
        values = [series[name] for _, series in report.daily]
        colour = LIVE if live else OTHERS[(number - 1) % len(OTHERS)]
        axes.plot(days, values, color=colour, linewidth=2.4 if live else 1.1, label=name.replace("_", " "), zorder=3 if live else 2)
    named = set()
    for moment in report.moments:
        if moment.kind in MARKS and moment.at > report.started:
            colour, label = MARKS[moment.kind]
            axes.axvline(_number(moment.at), color=colour, linewidth=1, linestyle=":", label=None if label in named else label)
            named.add(label)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(report.unit)
    axes.legend(ncols=8, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    axes.xaxis.set_major_formatter(DateFormatter("%b %d"))  # type: ignore[no-untyped-call]
    return svg(figure)


def latency_histogram(report: Report) -> str:
    """Latencies on a logarithmic axis with the median, the 95th and the 99th percentile."""
    values = report.latencies_ms[report.latencies_ms > 0]
    if not len(values):
        return ""
    figure, axes = axes_of(9.6, 2.4)
    low, high = np.quantile(values, 0.0005), values.max()
    axes.hist(values, bins=np.geomspace(max(low, 1e-3), max(high, low * 1.01), 80).tolist(), color="#9fb8ad")
    axes.set_xscale("log")
    for q, colour in ((0.5, LIVE), (0.95, "#c9a227"), (0.99, "#b00020")):
        at = float(np.quantile(values, q))
        axes.axvline(at, color=colour, linewidth=1.5, label=f"p{q * 100:g} {at:.2f} ms")
    axes.set_xlabel("ms")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def drift_map(report: Report) -> str:
    """A row per watched feature, a column per day: distance over threshold."""
    drift: Mapping[str, tuple[tuple[int, float, float | None], ...]] = report.drift
    if not drift:
        return ""
    names = sorted(drift)
    ratio = np.array([[value / threshold if threshold else np.nan for _, value, threshold in drift[name]] for name in names])
    figure, axes = axes_of(9.6, 0.9 + 0.2 * len(names))
    ends = [at for at, _, _ in drift[names[0]]]
    shown = axes.imshow(ratio, aspect="auto", cmap="RdYlGn_r", vmin=0, vmax=2, interpolation="nearest")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    ticks = list(range(0, len(ends), max(1, len(ends) // 8)))
    axes.set_xticks(ticks, [f"{to_datetime(ends[tick]):%b %d}" for tick in ticks])
    axes.grid(visible=False)
    figure.colorbar(shown, ax=axes, pad=0.01)
    return svg(figure)


def group_map(report: Report) -> str:
    """Error per group, where groups have two names: the first down, the second across."""
    if len(report.group_names) != 2 or not report.groups:
        return ""
    rows = sorted({group.key[0] for group in report.groups}, key=lambda key: -sum(g.n for g in report.groups if g.key[0] == key))[:20]
    columns = sorted({group.key[1] for group in report.groups})
    errors = np.full((len(rows), len(columns)), np.nan)
    for group in report.groups:
        if group.key[0] in rows and group.n >= 5:
            errors[rows.index(group.key[0]), columns.index(group.key[1])] = group.mae
    figure, axes = axes_of(9.6, 1.2 + 0.26 * len(rows))
    shown = axes.imshow(errors, aspect="auto", cmap="YlOrRd", interpolation="nearest")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xlabel(report.group_names[1].replace("_", " "))
    axes.grid(visible=False)
    figure.colorbar(shown, ax=axes, pad=0.01)
    return svg(figure)


def axes_of(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with empty axes in the house's style."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg(figure: Figure) -> str:
    """The figure as an SVG element, the same for the same figure."""
    with rc_context(_STYLE):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def _number(at: int) -> float:
    return float(date2num(to_datetime(at)))  # type: ignore[no-untyped-call]
