"""An explanation as one HTML page that opens offline: tables, and plots as inline SVG."""

from __future__ import annotations

from mainspring.design.explanation import Explanation
from mainspring.design.page import renderer

MOST = 20


def html(told: Explanation) -> str:
    """The page of an explanation.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    render = renderer("explanation", "The explanation as HTML")
    from mainspring.design import explanation_plots as plots

    followed = {
        name: (plots.partial(partial, told.unit), "" if accumulated is None else plots.accumulated(accumulated, told.unit))
        for name, (partial, accumulated) in told.followed.items()
    }
    return render(
        told=told,
        followed=followed,
        contributions=plots.bars(told.contributions[:MOST], "mean size of the contribution"),
        shuffled=plots.bars(told.shuffled[:MOST], f"{told.metric} worse by"),
    )
