"""A measurement of load as a page that opens offline."""

from __future__ import annotations

from mainspring.design.page import renderer
from mainspring.loop.load.recorder import Load


def html(url: str, loads: tuple[Load, ...]) -> str:
    """The page of one or more measurements of one address.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    render = renderer("load", "The page of a measurement of load")
    from mainspring.design.load_plots import by_percentile, over_time

    return render(url=url, loads=loads, by_percentile=by_percentile(loads), over_time=over_time(loads[-1]))
