"""The card of a model as one HTML file that opens offline: the sections of `evaluation.card`, with plots as inline SVG."""

from __future__ import annotations

from mainspring.design.page import renderer
from mainspring.evaluation.card import Card, figure, interval, sections
from mainspring.evaluation.record import Evaluation


def html(card: Card) -> str:
    """The page.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    render = renderer("card", "The card as HTML")
    from mainspring.design.card_plots import DRAWINGS

    evaluation = card.evaluation
    pictures = {} if evaluation is None else {name: draw(evaluation) for name, draw in DRAWINGS.items()}
    return render(card=card, sections=sections(card), pictures=pictures, tiles=[] if evaluation is None else _tiles(evaluation))


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
