"""The card of a model as one HTML file that opens offline: the sections of `evaluation.card`, with plots as inline SVG."""

from __future__ import annotations

from importlib import resources

from mainspring.errors import MissingExtraError
from mainspring.evaluation.card import Card, figure, interval, sections
from mainspring.evaluation.record import Evaluation


def html(card: Card) -> str:
    """The page.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2

        from mainspring.design.card_plots import DRAWINGS
    except ImportError as error:
        raise MissingExtraError("The card as HTML", "matplotlib", "report") from error
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(resources.files("mainspring.design").joinpath("card.html.jinja").read_text())
    evaluation = card.evaluation
    pictures = {} if evaluation is None else {name: draw(evaluation) for name, draw in DRAWINGS.items()}
    return template.render(card=card, sections=sections(card), pictures=pictures, tiles=[] if evaluation is None else _tiles(evaluation))


def _tiles(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The figures at the top: each with what it is."""
    own = evaluation.own_loss
    tiles = [(figure(own.value), f"{own.label}, {evaluation.level:.0%} {interval(own.low, own.high)}")]
    met = sum(one.verdict == "met" for one in evaluation.promises)
    if evaluation.promises:
        tiles.append((f"{met} of {len(evaluation.promises)}", "promises of quality met"))
    tiles.append((f"{evaluation.rows:,}", "held-out rows"))
    tiles.append((str(len(evaluation.worse)), "slices found to be worse"))
    if "p99" in evaluation.latency:
        tiles.append((f"{evaluation.latency['p99']:,.0f} us", "99th percentile of a row's prediction"))
    return tiles
