"""An evaluation on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mainspring.design.report_text import COLOURS
from mainspring.evaluation.card import figure, interval
from mainspring.evaluation.measuring import Measured
from mainspring.evaluation.record import Against, Evaluation

SHOWN_SLICES = 8


def print_evaluation(version: str, found: Evaluation, console: Console) -> None:
    """Measures, promises, rivals, the worst slices, and what was not measured."""
    console.print(f"[bold]{version}[/bold] on {found.rows:,} held-out rows, intervals of {found.level:.0%}, {found.drawn}")
    for table in (_measures(found), _promises(found), _against(found), _slices(found)):
        _print(console, table)
    for one in found.worse:
        console.print(f"Worse than the other rows: {one.name} ({one.rows:,} rows, {found.loss} {one.loss:.4g}, p {one.p:.2g})")
    for name, why in found.unmeasured.items():
        console.print(f"Not measured: {name}, {why}")


def _measures(found: Evaluation) -> Table:
    table = _table("Measures", "measure", "value", "interval")
    for one in found.measures:
        table.add_row(one.label, figure(one.value), _interval(one))
    return table


def _promises(found: Evaluation) -> Table:
    table = _table("Promises", "promised", "verdict", "measured", "interval")
    for one in found.promises:
        verdict = f"[{COLOURS[one.verdict]}]{one.verdict}[/]"
        table.add_row(escape(one.text), verdict, figure(one.measured.value), _interval(one.measured))
    return table


def _against(found: Evaluation) -> Table:
    table = _table(f"{found.own_loss.label} over that of", "rival", "its own", "ratio", "interval", "p (Holm)")
    for one in found.against:
        table.add_row(one.rival, figure(one.loss), figure(one.ratio), _interval(one), f"{one.p:.3g}")
    return table


def _slices(found: Evaluation) -> Table:
    table = _table("Declared slices, the worst first", "slice", "rows", found.own_loss.label, "interval")
    for one in found.slices[:SHOWN_SLICES]:
        table.add_row(one.name, f"{one.rows:,}", figure(one.measures[0].value), _interval(one.measures[0]))
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number == 0 else "right")
    return table


def _print(console: Console, table: Table) -> None:
    if table.row_count:
        console.print(table)


def _interval(one: Measured | Against) -> str:
    return escape(interval(one.low, one.high))
