"""An explanation as one HTML page that opens offline: tables, and plots as inline SVG."""

from __future__ import annotations

from importlib import resources

from mainspring.design.explanation import Explanation
from mainspring.design.report_text import figure
from mainspring.errors import MissingExtraError

MOST = 20


def html(told: Explanation) -> str:
    """The page of an explanation.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2

        from mainspring.design import explanation_plots as plots
    except ImportError as error:
        raise MissingExtraError("The explanation as HTML", "matplotlib", "report") from error
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"figure": figure}
    template = environment.from_string(resources.files("mainspring.design").joinpath("explanation.html.jinja").read_text())
    followed = {
        name: (plots.partial(partial, told.unit), "" if accumulated is None else plots.accumulated(accumulated, told.unit))
        for name, (partial, accumulated) in told.followed.items()
    }
    return template.render(
        told=told,
        followed=followed,
        contributions=plots.bars(told.contributions[:MOST], "mean size of the contribution"),
        shuffled=plots.bars(told.shuffled[:MOST], f"{told.metric} worse by"),
    )
