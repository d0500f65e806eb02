"""The report as one HTML file that opens offline: tables, plots as inline SVG, the architecture."""

from __future__ import annotations

from types import ModuleType

from mainspring.design.page import renderer
from mainspring.design.report import Report
from mainspring.design.report_text import KINDS, folded


def html(report: Report, diagram: str) -> str:
    """The report with ``diagram``, an SVG of the system.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    render = renderer("report", "The HTML report")
    from mainspring.design import plots

    return render(
        report=report,
        pictures=[picture for picture in _pictures(report, plots) if picture[2]],
        diagram=diagram,
        moments=folded(report.moments),
        kinds=KINDS,
    )


def _pictures(report: Report, plots: ModuleType) -> list[tuple[str, str, str]]:
    """Title, note and SVG of each plot; the SVG is empty where there is nothing to draw."""
    over_time = f"Mean absolute error per day, in {report.unit}; lines mark what the loop did."
    distance = "Jensen-Shannon distance of each day over its threshold; blank while the monitor gathers its first week."
    return [
        ("Error over time", over_time, plots.error_over_time(report)),
        ("Latency", "Of every request over HTTP, in milliseconds.", plots.latency_histogram(report)),
        ("Drift per feature", distance, plots.drift_map(report)),
        ("Error by " + " and ".join(report.group_names), f"Mean absolute error in {report.unit}.", plots.group_map(report)),
    ]
