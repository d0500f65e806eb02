"""Runs compared on one HTML page that opens offline: figures, curves as inline SVG, and what tells them apart."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from mainspring.clock import format_instant
from mainspring.errors import MissingExtraError
from mainspring.training.tracking.runs import Curve, Run, differences
from mainspring.training.tracking.tracker import Tracker

MOST_LINES = 40
"""Curves a plot at most; of more runs the newest are drawn."""
_STYLE: Any = {"svg.hashsalt": "mainspring", "svg.fonttype": "path", "font.size": 9}


def html(tracker: Tracker, runs: Sequence[Run]) -> str:
    """The page of these runs.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("The comparison of runs as HTML", "matplotlib", "report") from error
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"figure": _figure, "day": lambda at: format_instant(at).replace("T", " ")[:16]}
    template = environment.from_string(resources.files("mainspring.training.tracking").joinpath("runs.html.jinja").read_text())
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    return template.render(runs=runs, metrics=metrics, pictures=_pictures(tracker, runs), apart=_apart(tracker, runs))


def _apart(tracker: Tracker, runs: Sequence[Run]) -> dict[str, list[Any]]:
    shown = ("parameters", "data", "code", "notes", "seed", "parent", "artifacts")
    records = {run.id: {name: value for name, value in run.to_dict().items() if name in shown} for run in runs}
    return differences({run.id: {**records[run.id], "environment": tracker.environment(run)} for run in runs})


def _pictures(tracker: Tracker, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Name and SVG of every metric that was logged by step."""
    curves = {run.id: tracker.curves(run) for run in runs[-MOST_LINES:]}
    names = sorted({name for one in curves.values() for name in one})
    return [(name, _drawn({id: one[name] for id, one in curves.items() if name in one})) for name in names]


def _drawn(curves: Mapping[str, Curve]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for id, curve in curves.items():
            axes.plot(curve.step, curve.value, linewidth=1.2, label=id, marker="." if len(curve.step) == 1 else None)
        axes.set_xlabel("step")
        axes.grid(color="#e4e7eb")
        if len(curves) <= 10:
            axes.legend(frameon=False, fontsize=8)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
