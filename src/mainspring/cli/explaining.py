"""The ``explain`` and ``counterfactual`` verbs of ``models``: what a version makes of its features, and what would change an answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.models import json_option, opened, workspace_option

if TYPE_CHECKING:
    from mainspring.design.explanation import Explanation
    from mainspring.evaluation.explain.dependence import Dependence

SHOWN = 20


@click.command()
@click.argument("system")
@click.argument("which", default="champion")
@click.option("--feature", "features", multiple=True, help="Show how the answers follow this feature, or column of the request.")
@click.option("--together", type=click.FloatRange(0, 1), default=None, help="Shuffle features as one from this rank correlation on.")
@click.option("--rows", type=click.IntRange(min=100), default=2_000, show_default=True, help="Rows to explain it on, at most.")
@click.option("--html", "page", type=click.Path(path_type=Path), default=None, help="Write a page with plots to this file as well.")
@workspace_option
@json_option
def explain(
    system: str,
    which: str,
    features: tuple[str, ...],
    together: float | None,
    rows: int,
    page: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Show how much a version's answers hang on each feature, and how they follow one, on rows held back from its training.

    \b
    Example:
      mainspring models explain eta
      mainspring models explain eta champion --feature departure_delay --html explained.html
    """
    from mainspring.cli.progress import Bars
    from mainspring.design import explanation
    from mainspring.storage.workspace import Workspace

    with opened(system, workspace) as (registry, path), Bars(quiet=as_json) as bars:
        one = explanation.load_explained(registry, Workspace(path), system, which, rows=rows, progress=bars.step)
        told = explanation.explain(one, features, together=together, progress=bars.step)
    if page is not None:
        from mainspring.design.explanation_html import html

        page.write_text(html(told))
    if as_json:
        click.echo(json.dumps(told.to_dict()))
        return
    _print(told, features)
    click.echo(f"Wrote {page}." if page is not None else f"Next: mainspring models explain {system} --feature {told.contributions[0].name}")


@click.command()
@click.argument("system")
@click.argument("request_id")
@click.option("--below", type=float, default=None, help="The answer should have been below this.")
@click.option("--above", type=float, default=None, help="The answer should have been above this.")
@click.option("--fix", multiple=True, help="This feature stays as it is.")
@click.option("--increase", multiple=True, help="This feature may only increase.")
@click.option("--decrease", multiple=True, help="This feature may only decrease.")
@click.option("--most", type=click.IntRange(min=1), default=3, show_default=True, help="Features to change, at most.")
@workspace_option
@json_option
def counterfactual(
    system: str, request_id: str, below: float | None, above: float | None, fix: tuple[str, ...], increase: tuple[str, ...],
    decrease: tuple[str, ...], most: int, workspace: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what would have had to be otherwise in a logged request for an answer below or above a value.

    Few and small changes to values that occur in training rows, each shown by asking the version that answered again. Exit code 9 when
    none is found.

    \b
    Example:
      mainspring models counterfactual eta 745ff25d0ea832487d035021c048d111 --below 340 --fix planned_minutes
    """
    from mainspring.cli.progress import Bars
    from mainspring.design.explanation import counterfactuals_of
    from mainspring.evaluation.explain.changes import Constraints
    from mainspring.evaluation.explain.counterfactuals import Target
    from mainspring.storage.workspace import Workspace

    target, limits = Target(below, above), Constraints(fixed=fix, increase=increase, decrease=decrease)
    with opened(system, workspace) as (registry, path), Bars(quiet=as_json) as bars:
        score, found = counterfactuals_of(registry, Workspace(path), system, request_id, target, limits, most=most, progress=bars.step)
    if as_json:
        click.echo(json.dumps({"answered": score, **asdict(found)}))
    else:
        own = (
            "" if found.predicted[0] == score else f" The model says {found.predicted[0]:g}: the policy bounded it, or a feature was late."
        )
        click.echo(f"The answer was {score:g}.{own}")
        for one in found.found:
            click.echo(f"{one.predicted[0]:>10.4g}  {one}" + (f"  (so {', '.join(map(str, one.follows))})" if one.follows else ""))
        if found.reached:
            click.echo("It is there as it is.")
        elif not found.found:
            click.echo(f"None of {found.tried:,} changed rows gets there. Allow more changes (--most), or fix less.")
    if not (found.found or found.reached):
        raise SystemExit(9)


def _print(told: Explanation, features: tuple[str, ...]) -> None:
    click.echo(f"{told.version} on {told.rows:,} rows held back from its training; 95 % intervals, rows of one day together")
    click.echo(f"{'feature':<40} {'mean |contribution|':>30}")
    for one in told.contributions[:SHOWN]:
        click.echo(f"{one.name:<40} {_figures(one.value, one.low, one.high):>30}")
    click.echo(f"{'shuffled':<40} {f'{told.metric} worse by':>30}")
    for one in told.shuffled[:SHOWN]:
        click.echo(f"{one.name:<40} {_figures(one.value, one.low, one.high):>30}")
    for name in features:
        partial, accumulated = told.followed[name]
        _print_followed(f"{name}: mean {told.unit} with each value", partial)
        if accumulated is not None:
            _print_followed(f"{name}: what it alone adds (accumulated local effects)", accumulated)


def _print_followed(title: str, one: Dependence) -> None:
    click.echo(title)
    for value, *figures in zip(one.values, one.effect.tolist(), one.low.tolist(), one.high.tolist(), strict=True):
        shown = "missing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
        click.echo(f"  {shown:<38} {_figures(*figures):>30}")


def _figures(value: float, low: float, high: float) -> str:
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"
