"""Plots of a measurement of load as SVG text: latency by percentile and over time."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import FuncFormatter

from mainspring.design.plots import LIVE, OTHERS, new_axes, to_svg
from mainspring.loop.load.recorder import Load


def by_percentile(loads: tuple[Load, ...]) -> str:
    """Latency against the share of requests that are slower, both logarithmic; a line for each measurement."""
    figure, axes = new_axes(9.6, 3.4)
    for number, load in enumerate(loads):
        slower = np.geomspace(1, max(1 / load.latency.count, 1e-6), 200) if load.latency.count else np.ones(1)
        label = load.mode if load.asked_rate is None else f"{load.asked_rate:,.0f}/s"
        colour = LIVE if number == 0 else OTHERS[(number - 1) % len(OTHERS)]
        axes.plot(slower, load.latency.quantiles(1 - slower) * 1e3, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda slower, _: f"p{100 * (1 - slower):.6g}"))
    axes.set_ylabel("ms")
    axes.legend(frameon=False, fontsize=8)
    return to_svg(figure)


def over_time(load: Load) -> str:
    """The median, the 99th percentile and the longest latency of each second, and seconds with failures marked."""
    figure, axes = new_axes(9.6, 2.8)
    seconds = [moment.second for moment in load.moments]
    for values, colour, label in (
        ([moment.p50 for moment in load.moments], LIVE, "p50"),
        ([moment.p99 for moment in load.moments], "#c9a227", "p99"),
        ([moment.longest for moment in load.moments], "#b00020", "max"),
    ):
        axes.plot(seconds, np.array(values) * 1e3, color=colour, label=label, marker=".")
    for moment in load.moments:
        if moment.failed:
            axes.axvspan(moment.second - 0.5, moment.second + 0.5, color="#b00020", alpha=0.12)
    axes.set_yscale("log")
    axes.set_xlabel("seconds after the warm-up")
    axes.set_ylabel("ms")
    axes.legend(frameon=False, fontsize=8, ncols=3)
    return to_svg(figure)
