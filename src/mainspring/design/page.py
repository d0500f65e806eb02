"""Pages of HTML that open offline, from the templates in this room."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

from mainspring.clock import format_instant
from mainspring.design.report_text import figure, interval
from mainspring.errors import MissingExtraError


def renderer(name: str, what: str) -> Callable[..., str]:
    """What makes a page of the values that ``<name>.html.jinja`` shows; to be asked for before plots are imported.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed; the message names ``what`` needs them.
    """
    try:
        import jinja2
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(what, "matplotlib", "report") from error
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"figure": figure, "interval": interval, "day": lambda at: format_instant(at).replace("T", " ")[:16]}
    return environment.from_string(resources.files("mainspring.design").joinpath(f"{name}.html.jinja").read_text()).render
